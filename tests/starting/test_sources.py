import json
from pathlib import Path

import pytest

from moslora.errors import ConfigError, DataError
from moslora.starting.sources import Sources, look_at

PAIRS = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(3)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict] = PAIRS) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def found(*given: str, **options) -> Sources:
    return look_at(given, ask=lambda _question, answers: answers[0], **options)


def test_several_files_of_one_form_are_trained_on_together():
    sources = found(write("a.jsonl"), write("b.jsonl"))
    assert (sources.train, sources.validation, sources.samples) == (["a.jsonl", "b.jsonl"], None, 6)
    assert sources.shape.columns == {"instruction": "question", "output": "answer"}


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "eval"])
def test_a_file_named_so_is_validated_on(name: str):
    assert found(write("a.jsonl"), write(f"{name}.jsonl")).validation == f"{name}.jsonl"


def test_a_file_named_so_that_is_the_only_one_is_trained_on():
    assert found(write("dev.jsonl")).train == ["dev.jsonl"]


def test_a_folder_with_a_split_to_validate_on_is_both():
    write("set/train.jsonl")
    write("set/validation.jsonl")
    assert (found("set").train, found("set").validation) == (["set"], "set")


def test_files_that_differ_are_refused():
    with pytest.raises(DataError, match="differ in format or columns"):
        found(write("a.jsonl"), write("b.jsonl", [{"text": "t"}]))


def test_two_files_to_validate_on_are_refused():
    with pytest.raises(ConfigError, match="give one of them"):
        found(write("a.jsonl"), write("val.jsonl"), write("dev.jsonl"))


@pytest.mark.parametrize("given", ["photos", "photos/1.JPG"])
def test_pictures_are_answered_with_the_recipe_for_subjects(given: str):
    Path("photos").mkdir()
    for name in ("1.JPG", "2.png", "notes.txt"):
        Path("photos", name).touch()
    with pytest.raises(DataError) as caught:
        found(given)
    assert "moslora train dreambooth-sdxl --set data.train=photos" in str(caught.value)


def test_what_is_told_is_not_guessed():
    write("a.jsonl", [{"x": "q", "y": "a", "z": "c"}])
    shape = found("a.jsonl", told={"columns": {"prompt": "x", "completion": "y"}}).shape
    assert (shape.format, shape.columns) == ("completion", {"prompt": "x", "completion": "y"})
    assert found("a.jsonl", told={"format": "text", "columns": {"text": "z"}}).shape.format == "text"


@pytest.mark.parametrize(
    ("source", "name"), [("my.data.jsonl.gz", "my.data"), ("set", "set"), ("owner/name:config@train", "name-config")]
)
def test_a_recipe_is_named_after_its_first_source(source: str, name: str):
    if "/" not in source:
        Path(source).touch()
    assert Sources([source], None, 1, None).name == name  # type: ignore[arg-type]
