"""Whose page it is: in the pages, with two links in one browser, and once judging is closed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moslora.judging.founding import found_study
from moslora.judging.judgements import read_study
from moslora.judging.material import read_material
from tests.judging.conftest import Answer, Served

Serve = Callable[[Path], Served]


@pytest.fixture
def site(served: Serve, study_folder: Path) -> Served:
    return served(study_folder)


def link(site: Served, name: str) -> str:
    return next(f"/j/{judge.token}" for judge in site.study.judges if judge.name == name)


def answers(page: Answer) -> dict[str, str]:
    return {"pair": page.field("pair"), "shown": page.field("shown"), "q0": "left", "q1": "tie"}


def test_every_page_says_whose_it_is(site: Served):
    ben = site.browser_of("ben")
    pages = [ben.get(link(site, "ben")), ben.get("/judge")]
    for _ in range(12):
        ben.judge("tie", "tie")
    for page in (*pages, ben.get("/judge")):
        assert ">ben</p>" in page.text


def test_a_second_link_in_the_same_browser_takes_over_nothing_silently(site: Served):
    browser = site.browser_of("ann")
    ann = browser.get("/judge")
    browser.get(link(site, "ben"))
    for path, fields in (("/judge/answer", answers(ann)), ("/judge/undo", {"pair": ann.field("pair")})):
        refused = browser.post(path, fields)
        assert refused.status == 403
        assert "This page belongs to another link, that of ann; in this browser, the link of ben" in refused.text
        assert ">Go on as ben</a>" in refused.text
    assert read_study(site.study.folder).judgements == ()
    browser.get(link(site, "ann"))
    assert browser.post("/judge/answer", answers(ann)).status == 303


def test_the_page_at_the_end_undoes_its_own_judges_answers_alone(site: Served):
    ben, browser = site.browser_of("ben"), site.browser_of("ann")
    for _ in range(12):
        ben.judge("tie", "tie")
        browser.judge("tie", "tie")
    fields = {"pair": browser.get("/judge").field("pair")}
    browser.get(link(site, "ben"))
    refused = browser.post("/judge/undo", fields)
    assert (refused.status, ">Go on as ben</a>" in refused.text) == (403, True)
    browser.get(link(site, "ann"))
    assert [browser.post("/judge/undo", fields).status for _ in range(2)] == [303, 409]  # a second click
    assert [one.done for one in site.study.progress()] == [11, 12, 0]


def test_an_answer_that_was_kept_is_not_said_to_be_lost_once_judging_is_closed(site: Served):
    ann, admin = site.browser_of("ann"), site.browser_of("admin")
    kept = answers(ann.get("/judge"))
    ann.post("/judge/answer", kept)
    later = answers(ann.get("/judge"))
    admin.post("/admin/stop")
    assert ann.post("/judge/answer", kept).status == 303  # sent again, as its reply was lost
    refused = ann.post("/judge/answer", later)
    assert (refused.status, "this answer was not kept" in refused.text) == (409, True)
    assert len(read_study(site.study.folder).judgements) == 2


def test_the_link_to_a_closed_study_says_so_at_once_and_works_again_when_it_is_reopened(site: Served):
    admin = site.browser_of("admin")
    admin.post("/admin/stop")
    ben = site.browser_of("ben")
    page = ben.get(link(site, "ben")).text
    assert "Judging is closed" in page
    assert "Start" not in page
    admin.post("/admin/reopen")
    assert ben.judge("tie", "tie").status == 303


def test_texts_keep_their_indentation_and_find_their_own_direction(tmp_path: Path, served: Serve):
    for name, text in (("a", "\n    return 1  \n\n"), ("b", "שלום")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(text, encoding="utf-8")
    (tmp_path / "p.csv").write_text("name,prompt\nx,ما هذا؟\n", encoding="utf-8")
    material = read_material([str(tmp_path / "a"), str(tmp_path / "b")], prompts=tmp_path / "p.csv")
    found_study(tmp_path / "study", material)
    page = served(tmp_path / "study").browser_of("judge 1").get("/judge").text
    assert ">    return 1</p>" in page
    assert page.count('class="answer" dir="auto"') == 2
    assert '<span class="words" dir="auto">ما هذا؟</span>' in page
