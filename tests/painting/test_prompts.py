from pathlib import Path

import pytest

from moslora.errors import ConfigError, DataError
from moslora.painting.prompts import Prompt, parse_prompts, read_prompts, shipped_names, shipped_prompts

LIVE, OBJECTS = "dreambooth-live", "dreambooth-objects"


def test_a_file_has_a_prompt_a_line_with_the_subject_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff# scenes\n\na {} in  the snow \na house for {subject} – from above\n", encoding="utf-8")
    assert read_prompts(path, subject="ikat cat", plain="cat") == [
        Prompt("a ikat cat in the snow", "a cat in the snow"),
        Prompt("a house for ikat cat – from above", "a house for cat – from above"),
    ]
    assert read_prompts(path, subject="cat")[0] == Prompt("a cat in the snow", "a cat in the snow")


def test_prompts_without_placeholder_need_no_subject() -> None:
    assert parse_prompts("a house\na tree", place="here") == [Prompt("a house", "a house"), Prompt("a tree", "a tree")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a {} here", "list, line 1: nothing is known to put in the place of {}; name the subject"),
        ("x\n\na {style} cat", "list, line 3: unknown placeholder {style} (allowed: {}, {subject})"),
        ("a cat\n#\na  cat", "list, line 3: 'a cat' is line 1 too; remove one"),
        ("# nothing\n\n", "list: has no prompts; write one per line"),
    ],
)
def test_a_line_that_makes_no_prompt_is_named(text: str, message: str) -> None:
    with pytest.raises(DataError) as refusal:
        parse_prompts(text, place="list")
    assert message in str(refusal.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: the prompts cannot be read \(No such file or directory\)"):
        read_prompts(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.txt: not a text in UTF-8"):
        read_prompts(tmp_path / "latin.txt")


def test_dreambooths_lists_have_25_prompts_of_which_15_are_in_both() -> None:
    live, objects = (shipped_prompts(name, subject="ikat thing", plain="thing") for name in (LIVE, OBJECTS))
    assert len(live) == len(objects) == 25
    assert len(set(live) & set(objects)) == 15
    assert all("ikat thing" in text and plain == text.replace("ikat ", "") for text, plain in [*live, *objects])
    assert live[0] == objects[0] == Prompt("a ikat thing in the jungle", "a thing in the jungle")
    assert live[10].plain == "a thing wearing a red hat"
    assert objects[14].plain == "a thing floating in an ocean of milk"
    assert live[-1] == objects[-1] == Prompt("a cube shaped ikat thing", "a cube shaped thing")


def test_unrelated_prompts_name_no_subject() -> None:
    found = shipped_prompts("unrelated")
    assert len(found) == 12
    words = {word for prompt in found for word in prompt.text.replace(",", "").split()}
    assert not words & {"cat", "dog", "can", "toy", "plushie", "backpack", "sneaker", "vase", "clock", "teapot"}


def test_an_unknown_list_is_refused_with_the_nearest_name() -> None:
    assert shipped_names() == [LIVE, OBJECTS, "unrelated"]
    with pytest.raises(ConfigError, match="unknown list of prompts 'dreambooth-object'; did you mean 'dreambooth-obje"):
        shipped_prompts("dreambooth-object")
