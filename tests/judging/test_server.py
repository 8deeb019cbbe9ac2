"""What the site gives to whom, and what it refuses."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest

from moslora.judging.founding import Question, Setup, found_study
from moslora.judging.judgements import read_study
from moslora.judging.material import read_material
from tests.judging.conftest import Answer, Browser, Served

Serve = Callable[[Path], Served]


@pytest.fixture
def site(served: Serve, study_folder: Path) -> Served:
    return served(study_folder)


def kept(site: Served) -> int:
    return len(read_study(site.study.folder).judgements)


def test_a_judge_answers_everything_and_comes_back_to_where_they_were(site: Served):
    ann = site.browser_of("ann")
    for place in range(12):
        page = ann.get("/judge")
        assert f"<title>Pair {place + 1} of 12</title>" in page.text
        answer = ann.judge("left", "tie")
        assert (answer.status, answer.headers["location"]) == (303, "/judge")
        if place == 5:
            ann = site.browser_of("ann")  # the link again, on another machine
    assert "All done" in ann.get("/judge").text
    assert kept(site) == 24


def test_undoing_shows_what_was_chosen(site: Served):
    ann = site.browser_of("ann")
    assert 'id="undo" disabled' in ann.get("/judge").text
    ann.judge("right", "tie")
    assert ann.post("/judge/undo", {"pair": ann.get("/judge").field("pair")}).status == 303
    checked = re.findall(r'name="(q\d)" value="(\w+)" required checked', ann.get("/judge").text)
    assert checked == [("q0", "right"), ("q1", "tie")]
    assert kept(site) == 0


@pytest.mark.parametrize("path", ["/judge", "/admin", "/", "/export/judgements.json", "/export/judgements.csv"])
def test_nobody_gets_in_without_a_link(site: Served, path: str):
    browser = Browser(site.port)
    assert browser.get(path).status == 403
    browser.cookies = {f"judge_{site.study.told['cookie']}": "x", f"admin_{site.study.told['cookie']}": "x"}
    assert browser.get(path).status == (303 if path == "/" else 403)
    browser.cookies = {f"admin_{site.study.told['cookie']}": site.study.judges[0].token}
    assert browser.get(path).status == 403


@pytest.mark.parametrize("path", ["/j/", "/j/x", "/admin/x", "/j/%00", "/j/é".encode().decode("latin-1")])
def test_a_wrong_link_sets_no_cookie(site: Served, path: str):
    browser = Browser(site.port)
    answer = browser.get(path.replace("é", "%C3%A9").replace("Ã©", "%C3%A9"))
    assert answer.status == 404
    assert "set-cookie" not in answer.headers


def test_a_judge_is_no_admin_and_an_admin_no_judge(site: Served):
    ann, admin = site.browser_of("ann"), site.browser_of("admin")
    assert ann.get("/admin").status == ann.post("/admin/stop").status == 403
    assert ann.get("/export/judgements.csv").status == 403
    assert admin.get("/judge").status == 403
    assert not site.study.is_closed


def test_what_belongs_to_another_judge_is_refused(site: Served):
    ann, ben = site.browser_of("ann"), site.browser_of("ben")
    page = ben.get("/judge")
    fields = {"pair": page.field("pair"), "shown": page.field("shown"), "q0": "left", "q1": "left"}
    assert ann.post("/judge/answer", fields).status == 403
    assert ann.post("/judge/undo", {"pair": fields["pair"]}).status == 403
    picture = re.search(r"/picture/[\w-]+", page.text)
    assert picture
    assert ben.get(picture[0]).status == 200
    assert ann.get(picture[0]).status == 404
    assert Browser(site.port).get(picture[0]).status == 403
    assert kept(site) == 0


def forged(page: Answer, **changes: str | None) -> dict[str, str]:
    fields = {"pair": page.field("pair"), "shown": page.field("shown"), "q0": "left", "q1": "tie"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"q1": None}, 400),
        ({"q1": "both"}, 400),
        ({"q2": "left"}, 400),
        ({"shown": "yesterday"}, 400),
        ({"pair": "x"}, 403),
        ({"pair": "' OR 1=1 --"}, 403),
        ({"pair": "x" * 5000}, 413),
    ],
)
def test_forged_and_oversize_forms_keep_nothing(site: Served, changes: dict[str, str | None], status: int):
    ann = site.browser_of("ann")
    assert ann.post("/judge/answer", forged(ann.get("/judge"), **changes)).status == status
    assert kept(site) == 0
    assert ann.judge("left", "tie").status == 303


@pytest.mark.parametrize("body", [b"pair", b"\xff\xfe", b"pair=1&pair=2&shown=1&q0=left", b"%", b"{}"])
def test_bodies_that_are_no_form_are_refused(site: Served, body: bytes):
    ann = site.browser_of("ann")
    assert ann.send("POST", "/judge/answer", body=body).status == 400
    assert kept(site) == 0


def test_a_form_sent_twice_counts_once_and_a_stale_one_not_at_all(site: Served):
    ann = site.browser_of("ann")
    page = ann.get("/judge")
    assert [ann.post("/judge/answer", forged(page)).status for _ in range(3)] == [303, 303, 303]
    assert ann.post("/judge/answer", forged(page, q0="right")).status == 409
    assert kept(site) == 2


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data"}, 415),
        ({"Host": "evil.example"}, 421),
    ],
)
def test_posts_from_other_sites_keep_nothing(site: Served, headers: dict[str, str], status: int):
    ann, admin = site.browser_of("ann"), site.browser_of("admin")
    assert ann.post("/judge/answer", forged(ann.get("/judge")), **headers).status == status
    assert admin.post("/admin/stop", **headers).status == status
    assert kept(site) == 0
    assert not site.study.is_closed


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:80", ""])
def test_the_server_goes_by_no_other_name(site: Served, host: str):
    path = f"/j/{site.study.judges[0].token}"
    answer = Browser(site.port).get(path, Host=host)
    assert answer.status in (400, 421)
    assert "set-cookie" not in answer.headers
    assert Browser(site.port).get(path, Host=f"localhost:{site.port}").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static/..%2fserver.py",
        "/static/",
        "/picture/../../study.sqlite3",
        "/picture/%2e%2e%2fstudy.sqlite3",
        "/study.sqlite3",
        "/j/../admin",
    ],
)
def test_paths_lead_nowhere_else(site: Served, path: str):
    assert site.browser_of("ann").get(path).status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/judge/answer"),
        ("POST", "/judge"),
        ("PUT", "/judge/answer"),
        ("DELETE", "/admin"),
        ("GET", "/admin/stop"),
    ],
)
def test_only_the_methods_that_are_meant(site: Served, method: str, path: str):
    browser = site.browser_of("ann")
    assert browser.send(method, path, headers={}).status in (403, 404, 405)


def test_every_answer_carries_the_headers_that_keep_others_out(site: Served):
    ann = site.browser_of("ann")
    for answer in (ann.get("/judge"), ann.get("/nothing"), ann.get("/judge", Host="evil"), ann.judge("tie", "tie")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not {"server", "last-modified", "etag"} & answer.headers.keys()


def test_cookies_are_strict_and_of_this_study(site: Served):
    answer = Browser(site.port).get(f"/j/{site.study.judges[0].token}")
    name, *attributes = answer.headers["set-cookie"].split("; ")
    assert name.startswith(f"judge_{site.study.told['cookie']}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)


def test_scripts_in_prompts_answers_and_names_are_text(tmp_path: Path, served: Serve):
    attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "<img src=x onerror=alert(3)>.txt").write_text(f"{attack} {name}", encoding="utf-8")
    (tmp_path / "p.csv").write_text(
        'name,prompt,subject\n<img src=x onerror=alert(3)>,"' + attack.replace('"', '""') + '",=cmd()\n',
        encoding="utf-8",
    )
    material = read_material([str(tmp_path / "a"), str(tmp_path / "b")], prompts=tmp_path / "p.csv")
    setup = Setup((Question("<b>q", "<b>Which?"),), ("<i>ann", "=ben()"))
    found_study(tmp_path / "study", material, setup=setup)
    site = served(tmp_path / "study")
    ann, ben, admin = (site.browser_of(name) for name in ("<i>ann", "=ben()", "admin"))
    page = ann.get("/judge")
    for text in (page.text, admin.get("/admin").text, ann.get(f"/j/{site.study.judges[0].token}").text):
        assert not re.search(r"<(script>|img src=x|b>q|b>Which|i>ann)", text)
        assert "49" not in re.sub(r'value="[^"]*"', "", text)
    assert unescape(page.text).count(attack) == 3
    ann.judge("left")
    ben.judge("right")
    admin.post("/admin/stop")
    assert "'=ben()" in admin.get("/export/judgements.csv").text
    assert "'=cmd()" in admin.get("/export/judgements.csv").text


def test_the_admin_sees_how_far_everybody_is_and_nothing_of_who_is_ahead(site: Served):
    ann, admin = site.browser_of("ann"), site.browser_of("admin")
    before = admin.get("/admin").text
    assert "3 judges × 10 pairs × 2 questions" in " ".join(before.split())
    assert "0 of 60 planned judgements" in before
    for _ in range(12):
        ann.judge("left", "tie")
    after = admin.get("/admin").text
    assert "20 of 60 planned judgements" in after
    assert "12 of 12" in after
    for judge in site.study.judges:
        assert f"http://127.0.0.1:{site.port}/j/{judge.token}" in after
    for path in ("/export/judgements.json", "/export/judgements.csv"):
        assert admin.get(path).status == 409
    changed = set(re.findall(r"\w+", after)) - set(re.findall(r"\w+", before))
    assert not changed & {"zebra", "quokka", "left", "tie", "win", "wins"}


def test_closing_stops_judges_and_opens_the_export(site: Served):
    ann, admin = site.browser_of("ann"), site.browser_of("admin")
    ann.judge("left", "tie")
    page = ann.get("/judge")
    assert admin.post("/admin/stop").status == 303
    assert "Judging is closed" in ann.get("/judge").text
    assert ann.post("/judge/answer", forged(page)).status == 409
    told = json.loads(admin.get("/export/judgements.json").text)
    assert len(told["judgements"]) == 2
    assert told["judgements"][0]["judge"] == "ann"
    rows = admin.get("/export/judgements.csv").text.splitlines()
    assert rows[0].startswith("judge,pair,subject,prompt,question,first,second,outcome,left,check")
    assert len(rows) == 3
    admin.post("/admin/reopen")
    assert ann.post("/judge/answer", forged(page)).status == 303
    assert admin.get("/export/judgements.json").status == 409


def test_the_admin_adds_judges(site: Served):
    admin = site.browser_of("admin")
    assert admin.post("/admin/judge", {"name": "dora"}).status == 303
    assert site.browser_of("dora").judge("tie", "tie").status == 303
    refused = admin.post("/admin/judge", {"name": "dora"})
    assert refused.status == 400
    assert "already" in refused.text


def test_what_a_judge_is_sent_names_no_method(site: Served):
    sent = []
    for name in ("ann", "ben"):
        browser = site.browser_of(name)
        sent.append(browser.get(f"/j/{next(one.token for one in site.study.judges if one.name == name)}"))
        for _ in range(12):
            page = browser.get("/judge")
            paths = re.findall(r"/(?:picture|photo|static)/[\w.-]+", page.text)
            assert len(paths) >= 4
            sent += [page, *(browser.get(path) for path in paths), browser.judge("left", "right")]
        sent.append(browser.get("/judge"))
    for answer in sent:
        whole = f"{answer.headers}".encode() + answer.body
        for word in (b"zebra", b"quokka", b"lora", b"mixer", site.study.told["digest"].encode(), b"seed"):
            assert word not in whole.lower()


def test_the_two_pictures_of_a_pair_are_alike_in_everything_but_pixels(site: Served):
    ann, ben = site.browser_of("ann"), site.browser_of("ben")
    names = set()
    for _ in range(12):
        for browser in (ann, ben):
            pictures = [
                browser.get(path) for path in re.findall(r'src="(/picture/[\w-]+)"', browser.get("/judge").text)
            ]
            names.update(re.findall(r"/picture/([\w-]+)", browser.get("/judge").text))
            left, right = ({k: v for k, v in one.headers.items() if k != "date"} for one in pictures)
            assert left == right
            browser.judge("tie", "tie")
    assert len(names) == 2 * 12 * 2  # none is of two judges, or of two pages
