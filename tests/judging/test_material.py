import re
from pathlib import Path

import pytest
from PIL import Image

from moslora.errors import ConfigError, DataError
from moslora.judging.material import bodies, method_names, photo_bodies, read_material
from tests.judging.conftest import draw


def texts(folder: Path, **answers: str) -> str:
    folder.mkdir(parents=True)
    for name, text in answers.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return str(folder)


def test_what_generate_drew_tells_its_prompts(drawn: list[str]):
    found = read_material(drawn)
    assert found.methods == ("zebra-lora", "quokka-mixer")
    assert found.kind == "picture"
    assert [item.prompt for item in found.items] == [f"a red cup {number}" for number in range(10)]
    assert [path.parent.name for path in found.items[0].paths] == ["zebra-lora", "quokka-mixer"]


def test_a_whole_folder_of_generate_means_what_the_adapter_drew(tmp_path: Path):
    for name in ("one", "two"):
        draw(tmp_path / name / "drawn" / "adapter", pairs=2)
        draw(tmp_path / name / "drawn" / "base", pairs=2)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "drawn" / "sheet.png")
    found = read_material([str(tmp_path / name / "drawn") for name in ("one", "two")])
    assert found.methods == ("one", "two")
    assert [path.parent.name for path in found.items[0].paths] == ["adapter", "adapter"]
    assert len(found.items) == 2


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["runs/lora/drawn", "runs/moslora/drawn"], ["lora", "moslora"]),
        (["runs/x/drawn/adapter", "runs/x/drawn/base"], ["adapter", "base"]),
        (["ours=a", "b"], ["ours", "b"]),
        (["one=same", "two=same"], ["one", "two"]),
    ],
)
def test_methods_are_called_by_what_tells_their_folders_apart(given: list[str], names: list[str]):
    assert list(method_names(given)) == names


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(ConfigError, match=r"two methods are called 'a'; name them: first=a second=b"):
        method_names(["a", "a=b"])


def test_one_method_makes_no_pair(drawn: list[str]):
    with pytest.raises(ConfigError, match="comparing needs at least two folders of answers, not 1; give another"):
        read_material(drawn[:1])


def test_folders_inside_are_subjects_with_photos_of_their_own(tmp_path: Path):
    for name in ("a", "b"):
        draw(tmp_path / name / "dog", pairs=1)
        draw(tmp_path / name / "cup", pairs=1)
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "dog" / "1.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "all.png")
    found = read_material([str(tmp_path / "a"), str(tmp_path / "b")], photos=tmp_path / "photos")
    assert {item.subject for item in found.items} == {"dog", "cup"}
    assert [subject for subject, _ in photo_bodies(found)] == [None, "dog"]


def test_a_table_tells_prompts_and_subjects_of_what_others_made(tmp_path: Path):
    given = [texts(tmp_path / "a", x="one\r\n", y="two "), texts(tmp_path / "b", x="1", y="2")]
    (tmp_path / "p.csv").write_text("name,prompt,subject\nx,What?,first\ny,Who?,\n", encoding="utf-8")
    found = read_material(given, prompts=tmp_path / "p.csv")
    assert [(item.name, item.prompt, item.subject) for item in found.items] == [
        ("x", "What?", "first"),
        ("y", "Who?", None),
    ]
    assert bodies(found.items[1], found.kind) == [b"two", b"2"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,words\nx,What?\n", "no columns name and prompt"),
        ("name,prompt\nx,What?\ny,Who?\nx,Why?\n", r"p\.csv names 'x' twice; leave one of the lines"),
        ("name,prompt\nz,What?\n", "no prompt for 1 of 1 names, first 'x'"),
    ],
)
def test_a_table_that_lacks_something_is_refused(tmp_path: Path, table: str, message: str):
    (tmp_path / "p.csv").write_text(table, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_material([texts(tmp_path / "a", x="1"), texts(tmp_path / "b", x="2")], prompts=tmp_path / "p.csv")


def test_folders_must_hold_the_same_names(tmp_path: Path):
    given = [texts(tmp_path / "a", x="1", y="2"), texts(tmp_path / "b", x="1")]
    with pytest.raises(DataError, match=re.escape(f"1 is in only one, the first 'y' in {tmp_path / 'a'}")):
        read_material(given)


def test_other_prompts_under_one_name_are_refused(tmp_path: Path):
    given = [texts(tmp_path / "a", x="1")]
    a, b = draw(tmp_path / "c", pairs=1), draw(tmp_path / "d", pairs=1, prompt="a blue dog")
    (file,) = b.iterdir()
    file.rename(b / next(a.iterdir()).name)
    with pytest.raises(DataError, match=r"drawn for other prompts: \['a blue dog 0', 'a red cup 0'\]"):
        read_material([str(a), str(b)])
    with pytest.raises(DataError, match="do not hold the same names"):
        read_material([*given, str(a)])


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path, drawn: list[str]):
    with pytest.raises(DataError, match=r"there is no folder .*zebra-lore; did you mean '.*zebra-lora'"):
        read_material([drawn[0], f"{drawn[0][:-1]}e"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no pictures and no \.txt files"):
        read_material([drawn[0], str(tmp_path / "empty")])


def test_fewer_names_are_the_same_ones_each_time(drawn: list[str]):
    first, again = (read_material(drawn, names=4) for _ in range(2))
    assert len(first.items) == 4
    assert first == again
    assert first.digest == read_material(drawn).digest
