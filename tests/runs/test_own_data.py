"""Runs' material from files such as people have, in every format."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from moslora.data.vocabulary import Vocabulary
from moslora.errors import DataError
from moslora.evaluation.answers import SampleAnswer
from moslora.runs.kinds.language_material import read_sources, tokenise
from moslora.runs.kinds.language_tasks import held_out_losses, load_test_sets
from moslora.runs.language_settings import DataSettings, EvaluationSettings
from moslora.runs.material import Material
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from tests.own_data import FACTS, write_jsonl

Read = Callable[..., Material]
QUIET: dict[str, Any] = {"tasks": []}
BAD = {"instruction": "Lost?", "output": ""}


@pytest.fixture
def read(write_recipe: Callable[..., Path], model_folder: Path) -> Read:
    """The material of the tiny recipe on data of one's own, with the tiny model's tokenizer."""

    def run(*, seed: int = 3, **data: Any) -> Material:
        recipe = load_recipe(write_recipe(seed=seed, evaluation=QUIET, data={"max_length_tokens": 512, **data}))
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        return tokenise(recipe, read_sources(recipe), tokenizer, vocabulary=Vocabulary(tokenizer, None))

    return run


@pytest.fixture(scope="module")
def said(model_folder: Path) -> Callable[[Any], list[str]]:
    """The texts of rows without special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    return lambda rows: [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in rows]


def facts(folder: Path, *more: Mapping[str, object], count: int = 60) -> str:
    rows = [{"instruction": asked, "output": answer} for asked, answer in FACTS[:count]]
    return str(write_jsonl(folder / "mine.jsonl", [*rows, *more]))


def test_the_same_facts_are_learned_from_a_table_with_columns_of_other_names(read: Read, own_data: Path):
    plain = read(train=str(own_data / "facts.jsonl"))
    table = read(train=str(own_data / "facts.csv"), columns={"instruction": "question", "output": "answer"})
    assert len(plain.rows) == 60
    assert table.rows == plain.rows
    with pytest.raises(
        DataError, match=r"no column 'question' for the field 'instruction' \(it has: instruction, output"
    ):
        read(train=str(own_data / "facts.jsonl"), columns={"instruction": "question"})


def test_pairs_of_a_parquet_file_are_prompts_as_they_are(read: Read, own_data: Path, said: Any):
    columns = {"completion": "reply"}
    material = read(train=str(own_data / "pairs.parquet"), format="completion", columns=columns, loss_on="response")
    assert said(material.rows) == [f"{asked}\n{answer}" for asked, answer in FACTS]
    assert material.rows[0]["labels"][0] == -100


def test_chats_and_texts_are_read_from_files_and_folders(read: Read, own_data: Path, said: Any):
    assert len(read(train=str(own_data / "chats.jsonl"), format="chat").rows) == 20
    stories = read(train=str(own_data / "stories"), format="text")
    assert [text.split("\n")[0] for text in said(stories.rows)] == ["The cow", "The dog", "The hen"]
    assert stories.notes()[1:] == [f"{own_data / 'stories'}: read cow.txt, dog.txt, hen.txt"]


def test_a_long_text_is_divided_and_its_pieces_stay_on_one_side(read: Read, own_data: Path, said: Any):
    whole = read(train=str(own_data / "stories"), format="text")
    pieces = read(train=str(own_data / "stories"), format="text", max_length_tokens=32, validation_samples=1)
    both = [*pieces.rows, *pieces.validation]
    assert max(len(row["input_ids"]) for row in both) == 32
    learned = Counter(label for row in both for label in row["labels"][1:])
    assert learned == Counter(label for row in whole.rows for label in row["labels"][1:])
    assert pieces.notes()[1] == "3 documents were longer than data.max_length_tokens and divided into pieces"
    trained, apart = (" ".join(said(rows)) for rows in (pieces.rows, pieces.validation))
    names = ["The cow", "The dog", "The hen"]
    assert [(name in trained, name in apart) for name in names] in [
        [(place != own, place == own) for place in range(3)] for own in range(3)
    ]


def test_of_a_single_text_pieces_are_set_apart(read: Read, own_data: Path):
    data = {"train": str(own_data / "stories" / "cow.txt"), "format": "text", "max_length_tokens": 32}
    assert len(read(**data, validation_samples=2).validation) == 2


def test_a_long_text_can_be_left_out_or_stop_the_run(read: Read, own_data: Path, tmp_path: Path):
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "Short."}, {"text": "Long. " * 20}])
    data = {"train": str(source), "format": "text", "max_length_tokens": 32}
    assert len(read(**data, longer="leave_out").rows) == 1
    with pytest.raises(DataError, match=r"a\.jsonl: sample 2 has \d+ tokens, more than data\.max_length_tokens 32"):
        read(**data, longer="stop")


def test_a_file_of_its_own_is_validated_on(read: Read, own_data: Path, tmp_path: Path, said: Any):
    source = str(own_data / "facts.jsonl")
    apart = write_jsonl(tmp_path / "apart.jsonl", [{"instruction": "New?", "output": "Yes.", "topic": "n"}])
    material = read(train=source, validation=str(apart), limit=5)
    assert (len(material.rows), len(material.validation)) == (5, 1)
    assert "New?" in said(material.validation)[0]
    assert material.notes()[1:] == [f"{apart}: fields not used: topic"]
    assert material.warnings == []
    with pytest.raises(DataError, match=r"data\.validation .*facts\.jsonl is trained on too"):
        read(train=source, validation=f"{own_data}/../{own_data.name}/facts.jsonl")


def test_samples_validated_on_that_are_trained_on_too_are_told(read: Read, own_data: Path, tmp_path: Path):
    apart = facts(tmp_path, {"instruction": "New?", "output": "Yes."}, count=3)
    material = read(train=str(own_data / "facts.jsonl"), validation=apart)
    assert material.warnings == [
        f"{apart}: 3 of 4 samples are trained on too, so the validation loss looks better than it is"
    ]


def test_a_folder_is_validated_on_by_its_split(read: Read, tmp_path: Path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name, count in (("train", 4), ("validation", 2)):
        write_jsonl(folder / f"{name}.jsonl", [{"instruction": f"{name} {n}", "output": "x"} for n in range(count)])
    material = read(train=str(folder), validation=str(folder))
    assert (len(material.rows), len(material.validation)) == (4, 2)


def test_sources_have_their_share_of_an_epoch(read: Read, own_data: Path, tmp_path: Path, said: Any):
    large, small = str(own_data / "facts.jsonl"), facts(tmp_path, count=10)
    material = read(train={large: 3, small: 1})
    assert len(material.rows) == 80
    assert (
        material.notes()[1]
        == f"samples per epoch, by the sources' weights: {large} 60 (it has 60), {small} 20 (it has 10)"
    )
    draws = [said(read(train={large: 4, small: 1}, seed=seed).rows) for seed in (1, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({*map(tuple, draws)}) > 1


def test_what_is_set_apart_of_weighted_sources_is_not_trained_on(read: Read, own_data: Path, tmp_path: Path, said: Any):
    other = write_jsonl(tmp_path / "other.jsonl", [{"instruction": f"Other {n}", "output": "x"} for n in range(6)])
    material = read(train={str(own_data / "facts.jsonl"): 1, str(other): 1}, validation_samples=7)
    assert len(material.validation) == 7
    assert not {*said(material.validation)} & {*said(material.rows)}
    others = sum("Other" in text for text in said(material.rows))
    assert others == len(material.rows) - others


def test_bad_samples_stop_the_run_or_are_left_out_and_named(read: Read, tmp_path: Path):
    unreadable: dict[str, object] = {"instruction": "Half \ud83d", "output": "x"}
    path = tmp_path / "mine.jsonl"
    good = [json.dumps({"instruction": asked, "output": answer}) for asked, answer in FACTS]
    lines = ["", *good[:30], json.dumps(BAD), *good[30:], json.dumps(unreadable), "{"]
    path.write_text("\n".join(lines))
    way = r"\(to leave such samples out: --set data\.on_bad=skip\)$"
    with pytest.raises(DataError, match=r"mine\.jsonl: broken JSON at line 64.*" + way):
        read(train=str(path))
    material = read(train=str(path), on_bad="skip")
    assert len(material.rows) == 60
    assert material.warnings == material.notes()[1:]
    assert material.notes()[1].startswith(
        f"{path}: 3 samples that cannot be used were left out (broken JSON at line 64, column 2 ("
    )
    assert "| sample 62 (line 63): field 'instruction' holds \\ud83d (after 'Half '), half" in material.notes()[1]
    assert "| sample 31 (line 32): field 'output' is '', expected text; correct the sample)" in material.notes()[1]
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(DataError, match=r"sample 62 \(line 63\): field 'instruction' holds .*" + way):
        read(train=str(path))
    path.write_text(json.dumps(BAD) + "\n" + "\n".join(good))
    with pytest.raises(DataError, match=r"sample 1: field 'output' is '', expected text; correct the sample$"):
        read(train=str(path))


def test_too_many_bad_samples_are_refused(read: Read, tmp_path: Path):
    source = facts(tmp_path, *[BAD] * 4)
    with pytest.raises(
        DataError, match=r"mine\.jsonl: 4 of 64 samples cannot be used, .* at most 5%: sample 61: field"
    ):
        read(train=source, on_bad="skip")
    assert len(read(train=facts(tmp_path, *[BAD] * 3), on_bad="skip").rows) == 60


def test_a_file_of_nothing_but_bad_lines_is_refused(read: Read, tmp_path: Path):
    (tmp_path / "mine.jsonl").write_text("{\n{\n")
    with pytest.raises(DataError, match=r"mine\.jsonl: 2 of 2 samples cannot be used"):
        read(train=str(tmp_path / "mine.jsonl"), on_bad="skip")


def test_a_sample_that_a_cut_leaves_nothing_to_learn_of_is_told_by_its_line(read: Read, tmp_path: Path):
    source = facts(tmp_path, {"instruction": "Long? " * 100, "output": "x"}, count=3)
    Path(source).write_text("\n" + Path(source).read_text())
    with pytest.raises(DataError, match=r"mine\.jsonl: sample 4 \(line 5\) has \d+ tokens and none to learn from"):
        read(train=source, loss_on="response", max_length_tokens=64)


def test_bad_chats_are_left_out_one_by_one(read: Read, own_data: Path, tmp_path: Path):
    chats = (own_data / "chats.jsonl").read_text().splitlines()
    bad = json.dumps({"messages": [{"role": "user", "content": "alone"}]})
    (tmp_path / "mine.jsonl").write_text("\n".join([*chats[:5], bad, *chats[5:]]))
    material = read(train=str(tmp_path / "mine.jsonl"), format="chat", on_bad="skip")
    assert len(material.rows) == 20
    assert "1 sample that cannot be used was left out (sample 6: no assistant message" in material.notes()[1]


def test_what_a_sample_says_beside_its_instruction_reaches_the_prompt(read: Read, tmp_path: Path, said: Any):
    more: dict[str, object] = {"system": "Be brief.", "history": [["Before?", "Then."]], "input": "Context."}
    source = write_jsonl(tmp_path / "a.jsonl", [{"instruction": "Now?", "output": "So.", **more}])
    for prompt in ("alpaca", "plain"):
        (text,) = said(read(train=str(source), prompt=prompt).rows)
        assert [text.find(part) >= 0 for part in ("Be brief.", "Before?", "Then.", "Context.", "So.")] == [True] * 5


def test_the_first_samples_of_each_source_can_be_shown_though_rows_are_packed(
    read: Read, own_data: Path, tmp_path: Path, said: Any
):
    large, small = str(own_data / "facts.jsonl"), facts(tmp_path, count=1)
    material = read(train=[large, small], packing=True)
    assert {name: len(rows) for name, rows in material.first.items()} == {large: 2, small: 1}
    assert FACTS[1][1] in said(material.first[large])[1]


def test_bad_samples_are_told_on_the_screen_before_training(
    own_data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
):
    data = {"train": facts(tmp_path, BAD), "on_bad": "skip", "max_length_tokens": 512}
    recipe = load_recipe(write_recipe(data=data, evaluation=QUIET, training={"max_steps": 1}))
    told: list[str] = []
    record = run_recipe(recipe, tmp_path / "run", report=told.append, progress=False)
    (note,) = [line for line in told if "cannot be used" in line]
    assert note in record.notes
    assert "sample 61: field 'output' is ''" in note
    assert told.index(note) == 0


def test_questions_of_a_model_trained_on_text_are_asked_as_they_are(
    own_data: Path, tmp_path: Path, write_recipe: Callable[..., Path]
):
    data = {"train": str(own_data / "stories"), "format": "text", "max_length_tokens": 64}
    recipe = load_recipe(write_recipe(data=data, evaluation={"limit": 4}, training={"max_steps": 1}))
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert [(found.task, found.model_dump()["prompt"]) for found in record.evaluations] == [("everyday", "none")]
    assert "questions are asked as they are, without a prompt, as trained" in record.notes


def held_out(path: Path, data: DataSettings, model: Any, tokenizer: Any) -> list[SampleAnswer]:
    settings = EvaluationSettings(tasks=[f"samples:{path}"])
    (found,) = load_test_sets(settings, data)
    return held_out_losses(
        model, tokenizer, found.samples, task=found.task, prompt="none", batch_size=2, progress=False
    )


def test_a_long_held_out_text_is_scored_in_pieces_whose_tokens_all_count(
    own_data: Path, tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any
):
    texts = ["Short.", "Longer and longer. " * 3]
    path = write_jsonl(tmp_path / "kept.jsonl", [{"text": text} for text in texts])
    data = DataSettings(train="x", format="text", max_length_tokens=16)
    found = held_out(path, data, tiny_llama, tiny_tokenizer)
    assert [one.index for one in found] == [0, 1]
    for text, one in zip(texts, found, strict=True):
        ids = [*tiny_tokenizer(text)["input_ids"], tiny_tokenizer.eos_token_id]
        expected = []
        for start in range(0, len(ids) - 1, 15):
            piece = torch.tensor([ids[start : start + 16]])
            with torch.no_grad():
                logits = tiny_llama(piece).logits[0, :-1].log_softmax(-1)
            expected += [-logits[place, token].item() for place, token in enumerate(piece[0, 1:].tolist())]
        assert one.tokens == len(expected) == len(ids) - 1
        assert one.loss == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_held_out_samples_have_the_columns_of_the_training_samples(
    own_data: Path, tmp_path: Path, tiny_llama: Any, tiny_tokenizer: Any
):
    renamed = write_jsonl(tmp_path / "renamed.jsonl", [{"asked": "Who?", "told": "Me."}])
    plain = write_jsonl(tmp_path / "plain.jsonl", [{"instruction": "Who?", "output": "Me."}])
    data = DataSettings(train="x", columns={"instruction": "asked", "output": "told"}, prompt="plain")
    both = [held_out(path, data, tiny_llama, tiny_tokenizer) for path in (renamed, plain)]
    assert both[0] == both[1]


def test_held_out_samples_that_are_trained_on_too_are_told(own_data: Path, tmp_path: Path):
    train = own_data / "facts.jsonl"
    seen = [json.loads(line) for line in train.read_text().splitlines()[:3]]
    held = write_jsonl(tmp_path / "held.jsonl", [*seen, {"instruction": "Who?", "output": "Me."}])
    settings = EvaluationSettings.model_validate({"tasks": [f"samples:{held}"]})
    note = "held: 3 of 4 samples are trained on too, so the loss looks better than it is"
    assert note in load_test_sets(settings, DataSettings(train=str(train)))[0].notes
    assert not load_test_sets(settings, DataSettings(train=str(held.with_name("gone.jsonl"))))[0].notes
    assert not load_test_sets(settings, None)[0].notes
