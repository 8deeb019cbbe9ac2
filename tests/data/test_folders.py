"""Which files of a folder are read for a split."""

import pytest

from moslora.data.folders import split_files
from moslora.data.reading import Reading
from moslora.data.source import load_samples
from moslora.errors import DataError


def names(folder, split="train"):
    return [str(path.relative_to(folder)) for path in split_files(folder, split)]


@pytest.fixture
def folder(tmp_path):
    def make(*files):
        for name in files:
            (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
            (tmp_path / name).write_text(f'{{"file": "{name}"}}\n')
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        (["train.jsonl", "other.jsonl"], "train", ["train.jsonl"]),
        (["train-2.jsonl", "train-1.jsonl", "test-1.jsonl"], "train", ["train-1.jsonl", "train-2.jsonl"]),
        (["train-2.jsonl", "test-1.jsonl"], "test", ["test-1.jsonl"]),
        (["data/train-0.jsonl", "data/test-0.jsonl", "a.jsonl"], "train", ["data/train-0.jsonl"]),
        (["train/b.jsonl", "train/a.csv", "test/c.jsonl"], "train", ["train/a.csv", "train/b.jsonl"]),
        (
            ["b.jsonl", "a.jsonl.gz", "valid_1.jsonl", "testing.jsonl"],
            "train",
            ["a.jsonl.gz", "b.jsonl", "testing.jsonl"],
        ),
        (["a.jsonl", "README.md", "licence.txt", ".b.jsonl"], "train", ["a.jsonl"]),
        (["b.txt", "a.txt"], "train", ["a.txt", "b.txt"]),
        (["trainers.jsonl"], "train", ["trainers.jsonl"]),
    ],
)
def test_a_split_is_the_files_named_after_it_or_to_train_all_others(folder, files, split, expected):
    assert names(folder(*files), split) == expected


def test_a_split_other_than_the_one_to_train_on_must_be_named(folder):
    with pytest.raises(DataError, match=r"no file 'validation' ending in .* name the file itself"):
        names(folder("a.jsonl"), "validation")


def test_a_folder_of_tests_has_nothing_to_train_on(folder):
    with pytest.raises(DataError, match="no file 'train' ending in"):
        names(folder("test.jsonl", "notes.md"))


def test_several_files_are_joined_up_to_the_limit_and_told(folder):
    place = folder("b.jsonl", "a.jsonl", "c.jsonl", "d.jsonl")
    reading = Reading(str(place))
    assert [row["file"][0] for row in load_samples(str(place), reading=reading)] == ["a", "b", "c", "d"]
    assert reading.remarks == [f"{place}: read a.jsonl, b.jsonl, c.jsonl and 1 more"]
    assert reading.places[1] == f"{place / 'b.jsonl'}: sample 1"
    assert [row["file"][0] for row in load_samples(str(place), limit=2)] == ["a", "b"]
