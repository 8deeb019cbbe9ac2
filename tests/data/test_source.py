import gzip
import json
import sys
from types import ModuleType

import datasets
import pytest

from moslora.data.images import blank, encoded
from moslora.data.source import load_samples, task_samples
from moslora.data.tasks import TASKS, task
from moslora.errors import DataError

SAMPLE = {
    "instruction": "Answer format: true/false",
    "input": "",
    "output": "the correct answer is true",
    "answer": "true",
}


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def refusal(action, *args, **options):
    with pytest.raises(DataError) as caught:
        action(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def built_in(monkeypatch):
    module = ModuleType("moslora.data.everyday")
    rows = [SAMPLE | {"answer": f"answer{n}", "instruction": f"{n}", "kind": "k"} for n in (1, 2, 3)]
    module.everyday = lambda split: rows if split == "test" else rows[:2]
    monkeypatch.setitem(sys.modules, "moslora.data.everyday", module)
    return rows


def test_everyday_is_built_in(built_in):
    assert load_samples("everyday") == built_in[:2]
    assert load_samples("everyday", split="test", limit=1) == built_in[:1]
    assert task_samples(task("everyday"), None, split="test") == built_in


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_built_in_questions_are_checked_like_any_others(split):
    questions = task_samples(task("everyday"), None, split=split)
    assert questions == load_samples("everyday", split=split)
    assert all(
        task("everyday").allowed_labels(question["instruction"]) == TASKS["everyday"].labels for question in questions
    )


def test_a_split_that_everyday_lacks_is_refused():
    assert refusal(load_samples, "everyday", split="validation").startswith("everyday has no split 'validation'")


def test_a_file_is_read_and_limited(tmp_path):
    path = written(tmp_path / "a.jsonl", [SAMPLE] * 3)
    assert load_samples(str(path)) == [SAMPLE] * 3
    assert load_samples(str(path), split="whatever", limit=2) == [SAMPLE] * 2
    assert len(load_samples(str(path), limit=9)) == 3


def test_a_folder_gives_the_file_of_the_split(tmp_path):
    written(tmp_path / "train.jsonl.gz", [SAMPLE])
    written(tmp_path / "test.json", [SAMPLE] * 2)
    assert len(load_samples(str(tmp_path))) == 1
    assert len(load_samples(str(tmp_path), split="test")) == 2
    message = refusal(load_samples, str(tmp_path), split="validation")
    assert message.startswith(f"{tmp_path}: no file 'validation' ending in .jsonl, ")
    assert f"({tmp_path} has: test.json, train.jsonl.gz)" in message


def test_two_files_for_one_split_are_refused(tmp_path):
    paths = [written(tmp_path / "train.jsonl", [SAMPLE]), written(tmp_path / "train.json", [SAMPLE])]
    assert refusal(load_samples, str(tmp_path)).startswith(f"more than one file matches: {paths[0]}, {paths[1]}; ")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(tmp_path, limit):
    assert refusal(load_samples, "everyday", limit=limit).startswith(f"limit is {limit}, expected at least 1")
    assert refusal(task_samples, task("boolq"), str(tmp_path), split="test", limit=limit).startswith("limit is")


def test_what_is_neither_file_nor_hub_id_is_refused_with_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refusal(load_samples, "everydya").startswith(
        "no data source 'everydya'; did you mean 'everyday'? (allowed: "
    )
    (tmp_path / "questions.jsonl").touch()
    assert (
        "'questions'; did you mean 'questions.jsonl' (allowed: everyday, another task's name with its folder, a file"
        in refusal(load_samples, "questions")
    )
    assert "no data source ''" in refusal(load_samples, "")
    nearest = refusal(load_samples, "easy-vqa-balancd", built_in=["easy-vqa", "easy-vqa-balanced"])
    assert "did you mean 'easy-vqa-balanced'? (allowed: easy-vqa, easy-vqa-balanced, another" in nearest


def test_a_missing_file_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        refusal(load_samples, "data/train.jsonl")
        == "data/train.jsonl: no such file, and no folder data; check the path"
    )


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("cannot reach the hub\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    message = refusal(load_samples, "owner/name:config", split="test")
    assert message.startswith(
        "'owner/name:config' is not a local file or folder, and split 'test' cannot be loaded from the hub "
        "(ConnectionError: cannot reach the hub); check the name"
    )


def test_a_hub_set_is_read_through_datasets(monkeypatch):
    seen = []

    def load(name, config, *, split):
        seen.append((name, config, split))
        return datasets.Dataset.from_list([SAMPLE] * 3)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert load_samples("owner/name") == [SAMPLE] * 3
    assert load_samples("owner/name:small", split="test", limit=2) == [SAMPLE] * 2
    assert load_samples("owner/name:small@train[:10%]", split="test", limit=1) == [SAMPLE]
    assert load_samples("owner/name@dev", limit=1) == [SAMPLE]
    assert seen[:2] == [("owner/name", None, "train"), ("owner/name", "small", "test")]
    assert seen[2:] == [("owner/name", "small", "train[:10%]"), ("owner/name", None, "dev")]


def test_pictures_of_a_hub_set_come_as_files(monkeypatch):
    picture = encoded(blank((4, 3)))
    rows = [{"image": {"bytes": picture, "path": None}, "images": [{"bytes": picture, "path": "a.png"}] * 2, "n": 1}]
    features = {"image": datasets.Image(), "images": datasets.List(datasets.Image()), "n": datasets.Value("int64")}
    made = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: made)
    (row,) = load_samples("owner/name")
    assert row["image"]["bytes"] == picture
    assert [image["bytes"] for image in row["images"]] == [picture] * 2
    assert row["n"] == 1


def test_an_empty_hub_set_is_refused(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_dict({"a": []}))
    assert refusal(load_samples, "o/n") == "hub set 'o/n': no samples in split 'train'; choose another split"


@pytest.mark.parametrize("name", ["test/boolq.jsonl.gz", "boolq/test.json"])
def test_a_task_is_found_in_either_layout(tmp_path, name):
    written(tmp_path / name, [SAMPLE] * 2)
    assert task_samples(task("boolq"), str(tmp_path), split="test", limit=1) == [SAMPLE]


def test_a_task_without_a_folder_says_what_it_needs():
    message = refusal(task_samples, task("boolq"), None, split="test")
    assert message.startswith("task 'boolq' needs a data folder with test/boolq.jsonl or boolq/test.json; ")


def test_a_task_that_is_not_there_says_where_it_was_looked_for(tmp_path):
    written(tmp_path / "test" / "bolq.jsonl", [SAMPLE])
    message = refusal(task_samples, task("boolq"), str(tmp_path), split="test")
    assert message.startswith(
        f"no test questions for task 'boolq': looked for {tmp_path}/test/boolq and {tmp_path}/boolq/test with the "
    )
    assert "; did you mean 'bolq.jsonl'; check the folder" in message


def test_a_task_folder_that_is_missing_or_a_file_is_refused(tmp_path):
    path = written(tmp_path / "a.jsonl", [SAMPLE])
    assert f"{tmp_path / 'gone'}: no such" in refusal(task_samples, task("piqa"), str(tmp_path / "gone"), split="test")
    assert f"{path} is a file; give the folder" in refusal(task_samples, task("piqa"), str(path), split="test")


def test_the_answers_of_a_task_are_checked_with_the_files_name(tmp_path):
    path = written(tmp_path / "boolq" / "test.json", [SAMPLE, SAMPLE | {"answer": "yes"}])
    message = refusal(task_samples, task("boolq"), str(tmp_path), split="test")
    assert message.startswith(f"{path}: sample 2: field 'answer' is 'yes', ")


@pytest.mark.parametrize(("name", "count"), [("openbookqa", 500), ("ARC-Challenge", 1172), ("piqa", 1838)])
def test_the_real_test_sets_have_the_papers_sizes(real_data, name, count):
    assert len(task_samples(task(name), str(real_data("commonsense")), split="test")) == count
