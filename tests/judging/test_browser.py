"""Judges in a real browser: one by keyboard, one by clicks on a phone, and a server that is killed in between."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from moslora.emoji.scenes import render
from moslora.emoji.subjects import evaluation_scenes, subject_scenes
from moslora.judging.founding import Setup, found_study
from moslora.judging.judgements import opened, read_study, settings
from moslora.judging.material import Material, read_material
from moslora.painting.png import write_picture
from moslora.painting.requests import Request
from tests.judging.conftest import METHODS, Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
expect = playwright.expect
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn (pip install moslora[judge])")

STANDARDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
BOXES = """() => [...document.querySelectorAll('main *, header *')].filter(it => {
    const box = it.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !it.closest('.photos, .scroll, .unseen');
}).map(it => it.outerHTML.slice(0, 100))"""
SHOTS = os.environ.get("MOSLORA_SCREENSHOTS")  # a folder, to renew those of docs/judging.md


class Tap:
    """Passes on what is sent to a port, both ways, and keeps every byte of what comes back."""

    def __init__(self, port: int) -> None:
        self._answers: list[list[bytes]] = []
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._port))
                except ConnectionRefusedError:
                    client.close()
                    continue
                Thread(target=self._pass, args=(client, server, []), daemon=True).start()
                answers: list[bytes] = []
                self._answers.append(answers)
                Thread(target=self._pass, args=(server, client, answers), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, kept: list[bytes]) -> None:
        with suppress(OSError):
            while some := source.recv(65536):
                kept.append(some)
                target.sendall(some)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        source.close()

    @property
    def sent(self) -> bytes:
        """All that the server has sent, connection by connection."""
        return b"\n".join(b"".join(answers) for answers in self._answers)


class Server:
    """`moslora judge serve` in a process of its own, at one address however often it is started."""

    def __init__(self, folder: Path, log: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.tap = Tap(self.port)
        self.site = f"http://127.0.0.1:{self.tap.port}"
        self.folder, self.log = folder, log
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "moslora", "judge", "serve", "--study", str(self.folder)]
        command += ["--port", str(self.port), "--url", self.site]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while True:
            try:
                Browser(self.port).get("/")  # is answered once the links have been printed
                return
            except ConnectionRefusedError:
                assert self.process.poll() is None, self.log.read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def links(self) -> dict[str, str]:
        lines = (line.partition(": ") for line in self.log.read_text().splitlines())
        return {name: link for name, _, link in lines if link.startswith("http")}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found_study(tmp_path / "study", scenes(tmp_path), setup=Setup(judges=("ann", "ben", "cleo")))
    running = Server(tmp_path / "study", tmp_path / "log")
    yield running
    running.kill()
    running.tap.close()


def scenes(folder: Path) -> Material:
    """Ten scenes of a fox in the style of its photos, and in another."""
    wanted = evaluation_scenes("fox", count=10)
    for method, style in zip(METHODS, ("noto", "twemoji"), strict=True):
        (folder / method).mkdir()
        for number, scene in enumerate(wanted):
            image = render(replace(scene, style=style), size=256, seed=number)
            request = Request(scene.prompt(clauses=("background", "size", "place")), seed=0, number=number)
            write_picture(folder / method, image, request=request)
    (folder / "photos").mkdir()
    for number, (image, _) in enumerate(subject_scenes("fox", count=4)):
        image.save(folder / "photos" / f"{number}.png")
    return read_material([str(folder / method) for method in METHODS], photos=folder / "photos")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def window(chromium: Any, server: Server) -> Iterator[Callable[..., Any]]:
    """Open a page; what it says on the console, or asks of others, fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_window(*, width: int = 1280, scheme: str = "light", is_watched: bool = True, **options: Any) -> Any:
        height = 844 if width < 500 else 800
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        if is_watched:
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda it: None if it.url.startswith(server.site) else complaints.append(it.url))
        return page

    yield open_window
    for context in contexts:
        context.close()
    # A server that is killed takes what is being loaded with it; the browser says so, and the test goes on.
    assert [said for said in complaints if not said.startswith("Failed to load resource: net::ERR_")] == []


def test_two_judges_finish_while_the_server_is_killed(server: Server, window: Callable[..., Any]):
    desk, phone = window(), window(width=390, scheme="dark", has_touch=True, is_mobile=True)
    desk.goto(server.links()["ann"])
    phone.goto(server.links()["ben"])
    shoot(desk, "welcome")
    desk.keyboard.press("Tab")
    desk.keyboard.press("Enter")
    phone.get_by_role("link", name="Start").tap()
    for place in range(1, 13):
        for page in (desk, phone):
            at_page(page, place)
        if place == 4:
            shoot(desk, "pair")
            shoot(phone, "phone")
        desk.keyboard.press("1")
        desk.keyboard.press("2")
        if place in (3, 7):
            server.kill()
            server.start()
        desk.keyboard.press("Enter")
        for question, words in enumerate(("Right", "Left")):
            phone.locator("fieldset").nth(question).get_by_role("radio", name=words).tap()
        if place in (4, 8):
            at_page(desk, place + 1)
            server.kill()
            server.start()
        phone.get_by_role("button", name="Next pair" if place < 12 else "Finish").tap()
    for page in (desk, phone):
        expect(page).to_have_title("All done")
    check_record(server.folder)
    check_bytes(server, pages=24)


def at_page(page: Any, place: int) -> None:
    """Wait until a page is there and its script has run."""
    expect(page).to_have_title(f"Pair {place} of 12")
    expect(page.locator("#status")).to_have_text(f"Pair {place} of 12")
    expect(page.locator("#place")).to_be_focused()


def check_bytes(server: Server, *, pages: int) -> None:
    """Whatever was sent to the judges, of at least so many pages, holds neither name nor hash of a method."""
    whole = server.tap.sent
    assert whole.count(b"Which picture fits") >= pages
    assert whole.count(b"\x89PNG") >= 2 * pages
    with opened(server.folder) as database:
        told = settings(database)
    hashes = [told["digest"], told["seed"], told["admin_token"]]
    assert not [word for word in (*METHODS, *hashes) if word.encode() in whole]


def check_record(folder: Path) -> None:
    """Ann chose left and tie everywhere, Ben right and left."""
    found = read_study(folder).judgements
    assert Counter(one.judge for one in found) == {"ann": 24, "ben": 24}
    assert len({(one.judge, one.pair, one.question) for one in found if one.check is None}) == 40
    for one in found:
        right = METHODS[1] if one.left == METHODS[0] else METHODS[0]
        if one.judge == "ann":
            chosen = one.left if one.question == "subject similarity" else None
        else:
            chosen = right if one.question == "subject similarity" else one.left
        if one.check != "same":
            assert one.outcome == ("tie" if chosen is None else "first" if chosen == METHODS[0] else "second")


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"judging-{name}.png"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_fit_the_screen_and_pass_axe(
    server: Server, window: Callable[..., Any], axe: str, width: int, scheme: str
):
    page = window(width=width, scheme=scheme, is_watched=False, bypass_csp=True)  # axe is not of the page
    links = server.links()
    for link, follow in (
        (links["ann"], None),
        (f"{server.site}/judge", "zoom"),
        (links["admin"], None),
    ):
        page.goto(link)
        page.wait_for_load_state("load")
        check_page(page, axe, width)
        if follow:
            page.get_by_role("button", name="Enlarge the left picture").click()
            check_page(page, axe, width)
    if (width, scheme) == (1280, "light"):
        shoot(page, "admin")
    page.goto(f"{server.site}/nothing")
    check_page(page, axe, width)


def check_page(page: Any, axe: str, width: int) -> None:
    page.evaluate(axe)
    found = page.evaluate("tags => axe.run(document, {runOnly: {type: 'tag', values: tags}})", STANDARDS)
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 10
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(BOXES) == []


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checker of accessibility, from npm; it is no part of what is served."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm for axe-core (apt-get install npm)")
    folder = tmp_path_factory.mktemp("axe")
    fetched = subprocess.run([npm, "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, timeout=120)
    if fetched.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {fetched.stderr.strip().splitlines()[-1:]}")
    shutil.unpack_archive(next(folder.glob("*.tgz")), folder, filter="data")
    return (folder / "package" / "axe.min.js").read_text(encoding="utf-8")


def test_everything_is_done_with_the_tab_key_and_the_enlarged_view_gives_the_focus_back(
    server: Server, window: Callable[..., Any]
):
    page = window()
    page.goto(server.links()["ann"])
    page.get_by_role("link", name="Start").click()
    at_page(page, 1)
    assert page.locator("#status").text_content() == "Pair 1 of 12"
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label') || document.activeElement.name"
                " || document.activeElement.id || document.activeElement.tagName)"
            )
        )
    assert reached == [
        *(f"Enlarge photo {number} of the subject" for number in range(1, 5)),
        "Enlarge the left picture",
        "Enlarge the right picture",
        "q0",
        "q1",
        "send",
    ]
    page.keyboard.press("z")
    assert page.get_by_role("dialog").locator("#zoomed").text_content() == "Left"
    left = page.locator("#large").get_attribute("src")
    page.keyboard.press("ArrowRight")
    assert page.locator("#large").get_attribute("src") != left
    page.keyboard.press("Escape")
    # The browser tells a page of a closed dialog a moment later.
    page.wait_for_function("document.activeElement.getAttribute('aria-label') === 'Enlarge the right picture'")


def test_keys_say_what_they_did_undo_and_can_be_turned_off(server: Server, window: Callable[..., Any]):
    page = window()
    page.goto(server.links()["ann"])
    page.get_by_role("link", name="Start").click()
    at_page(page, 1)
    page.keyboard.press("3")
    assert page.locator("#status").text_content() == "Which picture is more like the subject in the photos? Right."
    page.keyboard.press("2")
    assert "Press Enter to go on" in page.locator("#status").text_content()
    page.keyboard.press("Enter")
    at_page(page, 2)
    page.keyboard.press("Backspace")
    at_page(page, 1)
    assert chosen(page) == ["right", "tie"]
    page.get_by_text("Keys", exact=True).click()
    page.get_by_label("Answer with single keys").uncheck()
    page.keyboard.press("1")
    assert page.locator("input:checked[type=radio]").first.input_value() == "right"
    page.reload()
    at_page(page, 1)
    page.keyboard.press("1")
    assert page.locator("input:checked[type=radio]").first.input_value() == "right"


def test_enter_and_digits_do_what_they_say_before_and_after_everything_is_answered(
    server: Server, window: Callable[..., Any]
):
    page = window()
    page.goto(server.links()["ann"])
    page.get_by_role("link", name="Start").click()
    at_page(page, 1)
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert page.locator("#status").text_content() == "Not answered yet: Which picture fits the description better?"
    assert page.evaluate("document.activeElement.name") == "q1"
    page.keyboard.press("3")
    page.keyboard.press("2")  # one too many
    assert chosen(page) == ["left", "right"]
    page.keyboard.press("Enter")
    at_page(page, 2)
    page.keyboard.press("Backspace")
    at_page(page, 1)
    page.keyboard.press("Enter")  # as it was answered before
    for place in range(2, 13):
        at_page(page, place)
        page.keyboard.press("2")
        page.keyboard.press("2")
        page.keyboard.press("Enter")
    expect(page).to_have_title("All done")
    page.wait_for_load_state("load")
    page.keyboard.press("Backspace")
    at_page(page, 12)
    assert chosen(page) == ["tie", "tie"]


def chosen(page: Any) -> list[str]:
    return page.locator("input:checked[type=radio]").evaluate_all("all => all.map(it => it.value)")


def test_a_judge_needs_no_script(server: Server, window: Callable[..., Any]):
    page = window(java_script_enabled=False)
    page.goto(server.links()["cleo"])
    page.get_by_role("link", name="Start").click()
    for question in range(2):
        page.locator("fieldset").nth(question).get_by_role("radio", name="Tie").click()
    page.get_by_role("button", name="Next pair").click()
    expect(page).to_have_title("Pair 2 of 12")
    assert [one.outcome for one in read_study(server.folder).judgements] == ["tie", "tie"]
