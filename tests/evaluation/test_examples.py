import json
from pathlib import Path

import pytest

from moslora.errors import CheckpointError
from moslora.evaluation.answers import Answer
from moslora.evaluation.examples import Examples, chosen, read_examples

KINDS = ("colour", "shape", "yes/no")


def answers(count=60, *, kinds=KINDS, share=3, **fields):
    """Every third is wrong."""
    return [
        Answer(n, "a", "a" if n % share else "b", n % share > 0, kind=kinds[n // 5 % len(kinds)], **fields)
        for n in range(count)
    ]


def test_every_kind_is_shown_right_and_wrong():
    found = chosen(answers())
    assert {(one.kind, one.is_correct) for one in found} == {(kind, right) for kind in KINDS for right in (True, False)}
    assert found == chosen(answers())
    assert [one.index for one in found] == sorted(one.index for one in found)


def test_many_kinds_are_shown_in_turn_right_and_wrong():
    found = chosen(answers(90, kinds=tuple("abcdefgh")))
    assert len({one.kind for one in found}) == 6
    assert sum(one.is_correct for one in found) == 3


def test_where_nearly_all_are_right_the_wrong_ones_are_still_shown():
    found = chosen([Answer(n, "a", "a", n != 40) for n in range(60)])
    assert len(found) == 6
    assert 40 in [one.index for one in found]


def test_few_answers_are_all_shown():
    assert len(chosen(answers(4))) == 4
    assert chosen([]) == []


def test_a_picture_is_shown_once_as_long_as_there_are_others():
    found = chosen([Answer(n, "a", "a", True, group=str(n // 10)) for n in range(60)])
    assert [one.group for one in found] == ["0", "1", "2", "3", "4", "5"]
    assert len(chosen([Answer(n, "a", "a", True, group="0") for n in range(60)])) == 6


def test_a_file_of_examples_is_read_strictly(tmp_path: Path):
    path = tmp_path / "examples.json"
    assert read_examples(path) is None
    picture = {"media_type": "image/png", "width": 1, "height": 1, "content": "aGVsbG8="}
    given = {"predicted": "a", "text": "a", "is_correct": True}
    example = {"index": 0, "kind": None, "question": "?", "expected": "a", "given": given, "pictures": [picture]}
    path.write_text(json.dumps({"when": "after", "examples": [example]}))
    found = read_examples(path)
    assert isinstance(found, Examples)
    assert found.examples[0].pictures[0].content == b"hello"
    path.write_text(
        json.dumps({"when": "after", "examples": [{**example, "pictures": [{**picture, "media_type": "text/html"}]}]})
    )
    with pytest.raises(CheckpointError, match=r"cannot read the examples .*media_type.*; remove it, or evaluate again"):
        read_examples(path)
