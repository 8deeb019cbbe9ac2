"""The page as a reader meets it, in a real browser: light and dark, on a phone and a desk, by keyboard, on paper."""

import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("needs Chromium (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")

FOCUSABLE = """() => [...document.querySelectorAll('a[href], summary, button, input, select, [tabindex="0"]')]
    .filter(it => it.checkVisibility()).length"""
CELLS = ("th", "td >> nth=0")
CLIPPED = """() => [...document.querySelectorAll('body *')].filter(it => {
    const box = it.getBoundingClientRect();
    return box.width && (box.right > innerWidth + 1 || box.left < -1) && !it.closest('.scroll, .skip');
}).map(it => it.outerHTML.slice(0, 100))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        found = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page; any message on the console and any request but for the page itself fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def open_page(path: Path, *, width: int = 1280, scheme: str = "light") -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        own = (path.as_uri(), "data:,")
        page.on("request", lambda request: None if request.url.startswith(own) else complaints.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_nothing_leaves_the_page_open_or_folded(opened: Callable[..., Any], page_path: Path, width: int, scheme: str):
    page = opened(page_path, width=width, scheme=scheme)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CLIPPED) == []
        page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_letters_stand_out_in_plots_and_text(opened: Callable[..., Any], page_path: Path, scheme: str, is_dark: bool):
    page = opened(page_path, scheme=scheme)
    colour = "s => getComputedStyle(document.querySelector(s))"
    paper = _brightness(page.evaluate(f"({colour})('body').backgroundColor"))
    assert (paper < 60) == is_dark
    letters = page.evaluate("[...document.querySelectorAll('svg text')].map(it => getComputedStyle(it).fill)")
    assert letters
    for letter in {*letters, page.evaluate(f"({colour})('p').color")}:
        assert abs(_brightness(letter) - paper) > 80, letter


def test_everything_that_acts_is_reached_with_the_tab_key(opened: Callable[..., Any], page_path: Path):
    page = opened(page_path)
    expected = page.evaluate(FOCUSABLE)
    assert expected > 15
    reached = set()
    for _ in range(expected):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("[...document.querySelectorAll('*')].indexOf(document.activeElement)"))
    body = page.evaluate("[...document.querySelectorAll('*')].indexOf(document.body)")
    assert len(reached - {body}) == expected


def test_a_fold_opens_with_the_keyboard(opened: Callable[..., Any], page_path: Path):
    page = opened(page_path)
    fold = page.locator("details:not([open]) > summary").first
    fold.focus()
    handle = fold.element_handle()
    page.keyboard.press("Enter")
    assert handle.evaluate("it => it.parentElement.open")


def test_headings_go_down_one_step_at_a_time_and_pictures_have_names(opened: Callable[..., Any], page_path: Path):
    page = opened(page_path)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(it => +it.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    shown = "[...document.querySelectorAll('main svg[role]')].filter(it => getComputedStyle(it).display !== 'none')"
    names = page.evaluate(f"{shown}.map(it => it.getAttribute('aria-label'))")
    assert len(names) == page.evaluate("document.querySelectorAll('figure').length") > 10
    assert all(len(name) > 20 for name in names)
    repeated = page.evaluate("""() => {
        const ids = [...document.querySelectorAll('[id]')].map(it => it.id);
        return ids.filter((id, index) => ids.indexOf(id) !== index);
    }""")
    assert repeated == []
    broken = """[...document.querySelectorAll('a[href^="#"], use')]
        .filter(it => !document.getElementById((it.getAttribute('href') || it.getAttribute('xlink:href')).slice(1)))"""
    assert page.evaluate(f"{broken}.length") == 0


@pytest.mark.parametrize(("width", "drawn"), [(375, "narrow"), (1280, "wide")])
def test_what_matters_comes_first_and_drawings_fill_the_page(
    opened: Callable[..., Any], page_path: Path, width: int, drawn: str
):
    page = opened(page_path, width=width)
    lead = page.locator(".summary strong").first.bounding_box()
    assert lead["y"] + lead["height"] < 200
    name, accuracy = (page.locator(f"table >> nth=0 >> tbody tr >> nth=0 >> {cell}").bounding_box() for cell in CELLS)
    assert accuracy["x"] + accuracy["width"] <= width
    assert name["y"] < 800
    drawing, section = page.locator(f"svg.{drawn}").first.bounding_box(), page.locator("section").first.bounding_box()
    assert drawing["width"] == pytest.approx(section["width"])
    assert page.locator("svg.narrow, svg.wide").first.is_visible() == (drawn == "narrow")


def test_an_address_opens_the_section_it_names(opened: Callable[..., Any], page_path: Path):
    page = opened(page_path)
    fold = page.locator("#c1-limits > details")
    assert fold.get_attribute("open") is None
    page.evaluate("location.hash = '#c1-limits'")
    page.wait_for_function("document.querySelector('#c1-limits > details').open")


def test_paper_shows_what_is_folded_away(opened: Callable[..., Any], page_path: Path):
    page = opened(page_path, scheme="dark")
    closed = page.locator("details:not([open])").count()
    assert closed
    assert page.pdf()[:4] == b"%PDF"
    assert page.locator("details:not([open])").count() == closed  # folded again afterwards
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert _brightness(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 255


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_questions_stand_beside_their_pictures_on_every_screen(
    opened: Callable[..., Any], pictured_path: Path, width: int, scheme: str
):
    page = opened(pictured_path, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CLIPPED) == []
    images = page.evaluate("[...document.images].map(it => [it.complete && it.naturalWidth, it.width, it.alt])")
    assert len(images) == 12
    for loaded, shown, alternative in images:
        assert loaded > 0
        assert 60 < shown < 120
        assert alternative.startswith("Picture of question ")
    paper = _brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for mark in (".examples .right", ".examples .wrong", ".tinted", ".asked"):
        letters = page.evaluate(f"getComputedStyle(document.querySelector('{mark}')).color")
        assert abs(_brightness(letters) - paper) > 80, mark


def test_a_table_of_mixed_up_answers_names_rows_and_columns(opened: Callable[..., Any], pictured_path: Path):
    page = opened(pictured_path)
    cells = page.locator("table.dense").first
    assert cells.locator("th[scope=col]").count() == 15
    assert cells.locator("th[scope=row]").count() == 13
    assert "how often each answer" in page.locator(".scroll:has(table.dense)").first.get_attribute("aria-label")


@pytest.mark.parametrize("width", [375, 1280])
def test_judged_pairs_stand_beside_one_another_on_every_screen(
    opened: Callable[..., Any], judged_path: Path, width: int
):
    page = opened(judged_path, width=width)
    page.evaluate("document.querySelectorAll('details').forEach(it => it.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CLIPPED) == []
    pairs = page.locator(".pairs li")
    assert pairs.count() == 14
    for place in range(pairs.count()):
        first, second = (one.bounding_box() for one in pairs.nth(place).locator("img").all())
        assert first["y"] == second["y"]
        assert first["x"] + first["width"] < second["x"]
    bar = pairs.first.locator(".bar").first
    widths = [one.bounding_box()["width"] for one in bar.locator("i").all()]
    assert widths[1:] == [0, 0]  # all judges preferred the first
    assert widths[0] == pytest.approx(bar.bounding_box()["width"])


def _brightness(colour: str) -> float:
    """From 0 (black) to 255 of a computed `rgb(…)`."""
    red, green, blue = (float(part) for part in colour.partition("(")[2].rstrip(")").split(",")[:3])
    return 0.299 * red + 0.587 * green + 0.114 * blue
