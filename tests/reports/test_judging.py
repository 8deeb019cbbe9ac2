"""The chapter of a judged study."""

import re
from pathlib import Path

import pytest
from PIL import Image

from moslora.errors import ConfigError
from moslora.judging.founding import Question, Setup, found_study
from moslora.judging.material import read_material
from moslora.judging.study import Study
from moslora.reports.page import make_report, write_report
from tests.judging.founded import found, judge


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = found(tmp_path_factory.mktemp("study"), judges=("ann", "ben", "cleo"), pairs=14)
    judge(folder, method="mixed")
    return folder


def sections(folder: Path) -> dict[str, str]:
    parts = make_report([folder]).html().split("<section id=")[1:]
    return {part.split('"')[1]: part for part in parts}


def test_a_study_shows_its_verdict_and_every_section(study: Path):
    html = make_report([study]).html()
    assert "mixed and plain, judged blind" in html
    assert "mixed is preferred to plain by 100.0 points" in html
    names = ["results", "intervals", "agreement", "judges", "pairs", "limits"]
    assert [*sections(study)] == [f"j1-{name}" for name in names]


def test_the_first_table_has_the_shape_of_table_6(study: Path):
    part = sections(study)["j1-results"]
    assert re.findall(r'<th scope="row">([^<]*)</th>', part) == ["subject similarity", "prompt consistency"]
    assert "42<small>3 judges, 14 pairs</small>" in part


def test_the_pairs_are_there_with_pictures_and_votes(study: Path):
    part = sections(study)["j1-pairs"]
    assert part.count("data:image/jpeg;base64,") == 2 * 14
    assert "subject similarity: 3 mixed, 0 neither, 0 plain" in part
    assert "2 less disputed" in part
    assert 'alt="Answer of mixed: a cup on table 0"' in part


def test_every_interval_has_a_drawing(study: Path, tmp_path: Path):
    written = write_report([study], tmp_path / "page.html", plots=tmp_path / "plots")
    names = {path.stem for path in written[1:]}
    assert names == {"j1-preference-subject-similarity", "j1-preference-prompt-consistency", "j1-sides"}


def test_a_study_that_goes_on_is_refused_and_names_no_method(tmp_path: Path):
    folder = found(tmp_path)
    judge(folder, method="mixed", is_closed=False, most=2)
    with pytest.raises(ConfigError, match="is still open, and results are not shown before it is closed") as refused:
        make_report([folder])
    assert "mixed" not in str(refused.value)


def test_texts_are_shown_as_they_are_and_escaped(tmp_path: Path):
    for method in ("one", "two"):
        (tmp_path / method).mkdir()
        for name in ("a", "b", "c"):
            (tmp_path / method / f"{name}.txt").write_text(f"<b>{method}</b> says {name}", encoding="utf-8")
    setup = Setup((Question("better", "Which is better?"),), ("ann", "ben"))
    material = read_material([str(tmp_path / "one"), str(tmp_path / "two")])
    found_study(tmp_path / "study", material, setup=setup)
    judge(tmp_path / "study", method=None)
    part = sections(tmp_path / "study")["j1-pairs"]
    assert "&lt;b&gt;one&lt;/b&gt; says a" in part
    assert "<b>" not in part
    assert "better: 0 one, 2 neither, 0 two" in part


def test_disputed_pairs_come_first(tmp_path: Path):
    for place, method in enumerate(("one", "two")):
        (tmp_path / method).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 30), (60 * number, 80 * place, 9)).save(tmp_path / method / f"n{number}.png")
    setup = Setup((Question("better", "Which is better?"),), ("ann", "ben"), same=0, swapped=0)
    found_study(tmp_path / "study", read_material([str(tmp_path / "one"), str(tmp_path / "two")]), setup=setup)
    served = Study(tmp_path / "study")
    for judge_number, one in enumerate(served.judges):
        while (page := served.page(one)) is not None:
            row = served._reader.execute(
                'SELECT item.name, "left" FROM showing JOIN item ON item.id = item WHERE token = ?', (page.token,)
            ).fetchone()
            wanted = judge_number if row[0] == "n2" else 0  # only about n2 do the two prefer different methods
            served.answer(one, page.token, choices=["left" if row[1] == wanted else "right"], seconds=4).result()
    served.stop().result()
    served.close()
    part = sections(tmp_path / "study")["j1-pairs"]
    titles = re.findall(r'<p class="asked">([^<]*)</p>', part)
    assert titles[0] == "n2"
    assert "better: 1 one, 0 neither, 1 two" in part
