"""Training data read from several sources, and its fixed split into validation samples and shares."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from moslora.data.prompts import prompt_ids
from moslora.data.tokens import IGNORED
from moslora.data.vocabulary import Vocabulary
from moslora.errors import ConfigError, DataError, MosloraError
from moslora.runs.kinds.language_material import read_sources, tokenise
from moslora.runs.material import Material
from moslora.runs.recipe import load_recipe

Read = Callable[..., Material]


@pytest.fixture
def read(write_recipe: Callable[..., Path], tiny_tokenizer: Any) -> Read:
    """The material of the tiny recipe, with changed groups of settings."""

    def run(**changes: Any) -> Material:
        recipe = load_recipe(write_recipe(**changes))
        return tokenise(recipe, read_sources(recipe), tiny_tokenizer, vocabulary=Vocabulary(tiny_tokenizer, None))

    return run


@pytest.fixture
def read_for_chat(write_recipe: Callable[..., Path], model_folder: Path) -> Read:
    """As `read`, with the tokenizer of the tiny model, which has a chat template."""

    def run(**changes: Any) -> Material:
        recipe = load_recipe(write_recipe(**changes))
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        return tokenise(recipe, read_sources(recipe), tokenizer, vocabulary=Vocabulary(tokenizer, None))

    return run


def texts(material: Material, tokenizer: Any, *, validation: bool = False) -> list[str]:
    examples = material.validation if validation else material.rows
    return [tokenizer.decode(example["input_ids"]) for example in examples]


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with the training files of two tasks, in the two layouts."""
    samples = {
        "ARC-Easy": [{"instruction": f"Easy {n}: answer1 or answer2?", "output": "answer1"} for n in range(3)],
        "openbookqa": [{"instruction": f"Open {n}: answer1 or answer2?", "output": "answer2"} for n in range(2)],
    }
    places = {
        "ARC-Easy": tmp_path / "tasks" / "train" / "ARC-Easy.jsonl",
        "openbookqa": tmp_path / "tasks" / "openbookqa" / "train.jsonl",
    }
    for name, place in places.items():
        place.parent.mkdir(parents=True)
        rows = [{**sample, "answer": sample["output"]} for sample in samples[name]]
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "tasks"


def test_several_sources_are_read_one_after_the_other(read: Read, tasks: Path, tmp_path: Path, tiny_tokenizer: Any):
    (tmp_path / "own.jsonl").write_text(json.dumps({"instruction": "Mine?", "output": "yes"}) + "\n")
    sources = ["openbookqa", str(tmp_path / "own.jsonl"), "ARC-Easy"]
    found = texts(read(data={"train": sources, "folder": str(tasks)}), tiny_tokenizer)
    assert len(found) == 6
    assert ["Open" in found[0], "Mine" in found[2], "Easy" in found[3]] == [True] * 3


def test_a_limit_holds_for_each_source(read: Read, tasks: Path):
    assert len(read(data={"train": ["ARC-Easy", "openbookqa"], "folder": str(tasks), "limit": 1}).rows) == 2


def test_a_task_alone_is_read_from_its_folder(read: Read, tasks: Path):
    assert len(read(data={"train": "ARC-Easy", "folder": str(tasks)}).rows) == 3


def test_a_task_without_a_folder_or_file_says_where_it_is_looked_for(read: Read, tasks: Path):
    with pytest.raises(DataError, match=r"'boolq' needs a data folder with train/boolq\.jsonl or boolq/train\.json"):
        read(data={"train": "boolq"})
    with pytest.raises(DataError, match=r"no train questions for task 'piqa': looked for .*train/piqa"):
        read(data={"train": ["ARC-Easy", "piqa"], "folder": str(tasks)})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, "data.train: 5 names no source; allowed: text that is not empty, or a list of such texts"),
        ([], "data.train: the list [] names no source; allowed:"),
        (["everyday", 5], "data.train: the list [everyday, 5] names no source; allowed:"),
        (["everyday", "everyday"], "data.train: names everyday more than once"),
    ],
)
def test_what_names_no_source_is_refused(given: Any, expected: str, write_recipe: Callable[..., Path]):
    with pytest.raises(ConfigError) as caught:
        load_recipe(write_recipe(data={"train": given}))
    assert expected in str(caught.value)


@pytest.mark.parametrize("fraction", [0, 1.5, "half"])
def test_a_fraction_is_a_share(fraction: Any, write_recipe: Callable[..., Path]):
    with pytest.raises(MosloraError, match=r"data\.fraction"):
        load_recipe(write_recipe(data={"fraction": fraction}))


def test_a_mistake_in_one_source_is_named_with_that_source(read: Read, tmp_path: Path):
    (tmp_path / "broken.jsonl").write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    with pytest.raises(DataError, match=r"broken\.jsonl: sample 2: field 'output' is missing"):
        read(data={"train": ["everyday", str(tmp_path / "broken.jsonl")], "limit": 3})


def test_validation_samples_are_the_same_for_every_seed_and_fraction(read: Read, tiny_tokenizer: Any):
    held_out = texts(read(data={"validation_samples": 4}), tiny_tokenizer, validation=True)
    assert len(set(held_out)) == 4
    for seed, fraction in ((3, 0.25), (4, 1.0), (5, 0.5)):
        material = read(seed=seed, data={"validation_samples": 4, "fraction": fraction})
        assert texts(material, tiny_tokenizer, validation=True) == held_out
        assert not set(texts(material, tiny_tokenizer)) & set(held_out)


def test_a_share_of_the_samples_is_set_apart_rounded_up(read: Read, tiny_tokenizer: Any):
    same = read(data={"validation_samples": 2})
    share = read(data={"validation_share": 0.1})
    assert [len(share.rows), len(share.validation)] == [14, 2]
    assert texts(share, tiny_tokenizer, validation=True) == texts(same, tiny_tokenizer, validation=True)
    with pytest.raises(DataError, match=r"data\.validation_share 0\.99 leaves nothing to train on of 16 samples; set"):
        read(data={"validation_share": 0.99})


def test_a_smaller_fraction_is_part_of_a_larger_one(read: Read, tiny_tokenizer: Any):
    shares = {
        share: texts(read(seed=seed, data={"validation_samples": 4, "fraction": share}), tiny_tokenizer)
        for seed, share in enumerate((0.01, 0.25, 0.5, 1.0))
    }
    assert [len(found) for found in shares.values()] == [1, 3, 6, 12]
    assert set(shares[0.01]) < set(shares[0.25]) < set(shares[0.5]) < set(shares[1.0])


def test_all_samples_stay_in_their_own_order(read: Read, tiny_tokenizer: Any):
    assert [text.split("Say ")[1][:3] for text in texts(read(), tiny_tokenizer)] == [
        f"{word} {n}" for n in range(4) for word in "abcd"
    ]


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A file of 24 samples in groups of three, the groups mixed."""
    path = tmp_path / "groups.jsonl"
    rows = [{"instruction": f"Group {n % 8} member {n // 8}?", "output": "yes", "set": n % 8} for n in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def groups_of(examples: list[str]) -> list[str]:
    return [text.split("member")[0] for text in examples]


def test_groups_are_not_divided_between_training_validation_and_shares(read: Read, groups: Path, tiny_tokenizer: Any):
    def split(fraction: float) -> tuple[list[str], list[str]]:
        material = read(data={"train": str(groups), "together": "set", "validation_samples": 5, "fraction": fraction})
        assert material.groups is not None
        assert len(material.groups) == len(material.rows)
        held_out = texts(material, tiny_tokenizer, validation=True)
        return groups_of(texts(material, tiny_tokenizer)), groups_of(held_out)

    whole, held_out = split(1.0)
    half, _ = split(0.5)
    assert [len(whole), len(held_out), len(half)] == [18, 6, 9]
    assert set(half) < set(whole)
    assert not set(whole) & set(held_out)


def test_without_a_field_no_sample_is_kept_with_another(read: Read, groups: Path):
    assert read(data={"train": str(groups)}).groups is None


def test_a_field_that_a_sample_lacks_is_refused(read: Read, groups: Path):
    with pytest.raises(DataError) as refused:
        read(data={"train": str(groups), "together": "topic"})
    assert str(refused.value) == (
        f"{groups}: sample 1 has no value 'topic' to keep samples together by (it has: instruction, output, set);"
        " correct data.together, or take it out"
    )


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Two short samples around a long one, each in a set."""
    path = tmp_path / "uneven.json"
    questions = ["One?", "Two, " * 40 + "or not?", "Three?"]
    path.write_text(json.dumps([{"instruction": q, "output": "yes", "set": n} for n, q in enumerate(questions)]))
    return path


def test_a_long_sample_is_cut_or_left_out_and_the_record_says_so(read: Read, uneven: Path, tiny_tokenizer: Any):
    data = {"train": str(uneven), "max_length_tokens": 32, "together": "set"}
    cut = read(data=data)
    assert max(len(row["input_ids"]) for row in cut.rows) == 32
    assert cut.notes()[1:] == ["1 sample was longer than data.max_length_tokens and cut"]
    left_out = read(data=data | {"leave_out_longer": True})
    assert [text.split("?")[0] for text in texts(left_out, tiny_tokenizer)] == ["One", "Three"]
    assert [group[1] for group in left_out.groups or []] == [0, 2]
    assert left_out.notes()[1:] == ["1 sample was longer than data.max_length_tokens and left out"]


def test_a_long_sample_can_stop_the_run(read: Read, uneven: Path):
    with pytest.raises(
        DataError, match=r"uneven.json: sample 2 has (\d+) tokens, more than data\.max_length_tokens 32"
    ):
        read(data={"train": str(uneven), "max_length_tokens": 32, "longer": "stop"})


def test_a_sample_cut_before_its_response_is_refused_with_advice(read: Read, uneven: Path):
    with pytest.raises(
        DataError, match=r"uneven.json: sample 2 has (\d+) tokens .* set data\.max_length_tokens to \1,"
    ):
        read(data={"train": str(uneven), "max_length_tokens": 32, "loss_on": "response"})


def test_keeping_samples_together_does_not_go_with_packing(read: Read, groups: Path):
    with pytest.raises(ConfigError, match=r"data.together=set does not work with data.packing: set one of them"):
        read(data={"train": str(groups), "together": "set", "packing": True})


def test_validation_samples_that_take_every_group_are_refused(read: Read, groups: Path):
    with pytest.raises(DataError) as refused:
        read(data={"train": str(groups), "together": "output", "validation_samples": 5})
    assert str(refused.value) == (
        f"{groups}: data.validation_samples 5 leaves nothing to train on of 24 samples (groups by output: 1);"
        " set fewer apart"
    )


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "topic": "birds"}


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    path = tmp_path / "chats.jsonl"
    path.write_text((json.dumps({**CHAT, "images": ["x.png"]}) + "\n") * 4)
    return path


def test_ignored_fields_are_left_out_and_unused_ones_noted(chats: Path, read_for_chat: Read):
    data = {"train": str(chats), "format": "chat"}
    with pytest.raises(DataError, match=r"chats\.jsonl: sample 1: field 'images' is not text"):
        read_for_chat(data=data)
    material = read_for_chat(data={**data, "ignore": ["images"]})
    assert material.notes()[1:] == [
        "questions are asked through the chat template, as trained",
        f"{chats}: fields not used: topic",
    ]


def test_a_message_that_says_nothing_without_its_ignored_calls_is_refused_or_left_out(
    tmp_path: Path, read_for_chat: Read
):
    """Its content is null, empty or absent, as calls have it; a name alone is taken for a list of one."""
    call = {"type": "function", "function": {"name": "now", "arguments": "{}"}}
    silent = {"role": "assistant", "content": None, "tool_calls": [call]}
    rows = [CHAT] * 40 + [{"messages": [CHAT["messages"][0], silent, CHAT["messages"][1]]}]
    path = tmp_path / "calls.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": str(path), "format": "chat"}
    told = "message 2: the chat template leaves out the field 'tool_calls'; choose one that shows tools: --set data"
    skip = r" \(to leave such samples out: --set data\.on_bad=skip\)$"
    with pytest.raises(DataError, match=rf"sample 41: {told}\.chat_template=chatml-tools.*{skip}"):
        read_for_chat(data=data)
    assert len(read_for_chat(data={**data, "chat_template": "chatml-tools"}).rows) == 41
    nothing = r"sample 41: message 2 says nothing without its tool_calls, which data\.ignore takes out: take tool_calls"
    with pytest.raises(DataError, match=rf"{nothing} off data\.ignore, and choose .*=chatml-tools\){skip}"):
        read_for_chat(data={**data, "ignore": "tool_calls"})
    skipping = {**data, "ignore": "tool_calls", "on_bad": "skip"}
    assert len(read_for_chat(data=skipping).rows) == 40
    silent["content"] = "I look at the clock."
    path.write_text(json.dumps(rows[-1]) + "\n")
    assert len(read_for_chat(data={**data, "ignore": ["tool_calls"]}).rows) == 1


@pytest.mark.parametrize(
    ("data", "prompt", "note"),
    [
        ({}, None, []),
        ({"format": "chat"}, "chat", ["questions are asked through the chat template, as trained"]),
        (
            {"format": "chat"},
            "alpaca",
            ["questions are asked with the prompt 'alpaca' (evaluation.prompt), training used 'chat'"],
        ),
        ({}, "chat", ["questions are asked with the prompt 'chat' (evaluation.prompt), training used 'plain'"]),
    ],
)
def test_the_prompt_of_the_questions_is_noted(
    chats: Path, read_for_chat: Read, data: dict[str, Any], prompt: str | None, note: list[str]
):
    source = {"train": str(chats), "ignore": ["images", "topic"]} if data else {}
    material = read_for_chat(data={**data, **source}, evaluation={"prompt": prompt})
    assert material.notes()[1:] == note


def test_questions_that_the_tokenizer_cannot_ask_are_refused_early(read: Read):
    with pytest.raises(ConfigError, match="the prompt 'chat' needs a chat template"):
        read(evaluation={"prompt": "chat"})


@pytest.fixture
def asked(tmp_path: Path) -> Callable[..., str]:
    """A file of one instruction four times."""

    def write(**sample: Any) -> str:
        path = tmp_path / "asked.jsonl"
        path.write_text((json.dumps(sample) + "\n") * 4)
        return str(path)

    return write


def test_instructions_through_the_chat_template_learn_their_output_alone(
    read_for_chat: Read, asked: Callable[..., str], model_folder: Path
):
    sample = {"instruction": "Sum.", "input": "2 3", "output": "5", "history": [["Hi", "Ho"]]}
    row = read_for_chat(data={"train": asked(**sample), "prompt": "chat", "loss_on": "response"}).rows[0]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    said = (("user", "Hi"), ("assistant", "Ho"), ("user", "Sum.\n2 3"), ("assistant", "5"))
    whole = tokenizer.apply_chat_template([{"role": role, "content": text} for role, text in said], tokenize=False)
    assert tokenizer.decode(row["input_ids"]).strip() == whole.strip()
    learned = [label for label in row["labels"] if label != IGNORED]
    assert tokenizer.decode(learned) == "5<|end|>"
    (prompt,) = prompt_ids([sample], tokenizer, style="chat")
    assert row["input_ids"][: len(prompt)] == prompt
    assert row["labels"][len(prompt)] == row["input_ids"][len(prompt)]


def test_a_system_message_for_instructions_in_chats_is_there_once(
    read_for_chat: Read, asked: Callable[..., str], model_folder: Path
):
    data = {"train": asked(instruction="Sum.", output="5"), "prompt": "chat", "system": "Short."}
    found = texts(read_for_chat(data=data), AutoTokenizer.from_pretrained(model_folder))
    assert found[0].count("Short.") == 1


def test_samples_set_apart_that_are_trained_on_too_are_told(read: Read, asked: Callable[..., str]):
    found = read(data={"train": asked(instruction="Sum.", output="5"), "validation_samples": 1})
    assert any("1 of 1 samples are trained on too" in note for note in found.notes())
