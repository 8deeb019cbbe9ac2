"""A study is resumed only as what it was begun as."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from moslora.errors import ConfigError
from moslora.judging.founding import PROMPT, SUBJECT, Question
from moslora.judging.material import read_material
from moslora.judging.resuming import Wanted, check_same


@pytest.fixture
def wanted(tmp_path: Path, drawn: list[str], study_folder: Path) -> Wanted:
    """All that the study was begun with."""
    return Wanted(
        drawn,
        photos=tmp_path / "photos",
        names=10,
        questions=[SUBJECT, PROMPT],
        judge=["ann", "ben", "cleo"],
        same=1,
        swapped=1,
    )


def test_the_same_again_and_less_are_resumed(wanted: Wanted, study_folder: Path):
    for one in (wanted, Wanted(), Wanted(wanted.folders), Wanted(judges=3), Wanted(photos=wanted.photos)):
        check_same(study_folder, one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"judges": 4, "judge": ()}, "judges 3, not 4; leave the option out"),
        ({"judge": ["ann", "ben", "dan"]}, r"judges \['ann', 'ben', 'cleo'\], not \['ann', 'ben', 'dan'\]"),
        ({"names": 4}, "names 10, not 4"),
        ({"same": 0}, "same 1, not 0"),
        ({"swapped": 2}, "swapped 1, not 2"),
        ({"questions": [SUBJECT]}, r"questions \['subject similarity', 'prompt consistency'\], not"),
        (
            {"questions": [SUBJECT, Question(PROMPT.name, "Which one?")]},
            "question 'prompt consistency' as 'Which picture fits the description better.', not 'Which one.'",
        ),
    ],
)
def test_another_option_is_refused_by_name(wanted: Wanted, study_folder: Path, changes: dict, message: str):
    with pytest.raises(ConfigError, match=f"study was begun with {message}"):
        check_same(study_folder, replace(wanted, **changes))


@pytest.mark.parametrize("with_folders", [True, False])
def test_other_prompts_are_refused(wanted: Wanted, study_folder: Path, tmp_path: Path, with_folders: bool):
    items = read_material(wanted.folders).items
    rows = [[item.name, item.prompt] for item in items]
    table = tmp_path / "p.csv"
    asked = replace(wanted, prompts=table, folders=wanted.folders if with_folders else ())

    def write() -> None:
        table.write_text("\n".join(",".join(row) for row in [["name", "prompt"], *rows]) + "\n")

    write()
    check_same(study_folder, asked)
    rows[2][1] = "a blue dog"
    write()
    with pytest.raises(ConfigError, match=f"the prompt of '{items[2].name}' as 'a red cup 2', not 'a blue dog'; leave"):
        check_same(study_folder, asked)


def test_other_photos_are_refused(wanted: Wanted, study_folder: Path, tmp_path: Path):
    shutil.copytree(tmp_path / "photos", tmp_path / "more")
    check_same(study_folder, replace(wanted, photos=tmp_path / "more"))
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "two.png")
    for one in (replace(wanted, photos=tmp_path / "more"), Wanted(photos=tmp_path / "more")):
        with pytest.raises(ConfigError, match=r"photos of its own, not those that are in .*more now; leave the option"):
            check_same(study_folder, one)
