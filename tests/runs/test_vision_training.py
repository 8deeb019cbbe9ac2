"""How a vision-language model is trained: what a batch holds, what a run says of its data, and where it goes on."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moslora.adapter.preparing import prepare
from moslora.data.vocabulary import Vocabulary
from moslora.records import RunRecord
from moslora.runs.adapters import adapted_on_meta, whole_options
from moslora.runs.kinds import kind_of
from moslora.runs.kinds.vision_material import rows_of
from moslora.runs.material import Material
from moslora.runs.models import load_model
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.training import vision_language
from moslora.training.validation import sample_losses
from tests.processes import Program

QUIET = {"evaluation": {"tasks": []}}
ONLY = {"adapter": {"parts": None, "projector": "only"}}


@pytest.fixture
def material(write_vision: Callable[..., Path]) -> Callable[..., Material]:
    """The rows of the tiny recipe, with changed groups of settings."""

    def made(**changes: Any) -> Material:
        recipe: Any = load_recipe(write_vision(**changes))
        kind = kind_of(recipe.kind)
        processor = kind.load_processor(recipe.model)
        on_meta = adapted_on_meta(recipe.model, recipe.adapter.method, recipe.adapter.options)
        return rows_of(recipe, kind.read(recipe), processor, vocabulary=Vocabulary.of(processor.tokenizer, on_meta))

    return made


@pytest.fixture
def train_vision(tmp_path: Path, write_vision: Callable[..., Path]) -> Callable[..., RunRecord]:
    """Train the tiny recipe, with changed groups of settings, in the folder `name`."""

    def run(name: str, *, resume: bool = False, **changes: Any) -> RunRecord:
        recipe = load_recipe(write_vision(**{**QUIET, **changes}))
        return run_recipe(recipe, tmp_path / name, resume=resume, progress=False)

    return run


def mixed(folder: Path, *, texts: int, pictures: int = 12) -> str:
    """Samples of pictures and of text, some of these long, as a file."""
    samples = json.loads((folder / "train.json").read_text())[:pictures]
    for number in range(texts):
        said = f"Say {'red ' * (1 + number % 4)}"
        turns = [{"from": "human", "value": said}, {"from": "gpt", "value": "red"}]
        samples.append({"id": f"text {number}", "conversations": turns})
    (folder / "mixed.json").write_text(json.dumps(samples))
    return str(folder / "mixed.json")


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """What a run trained."""
    (file,) = [*run.glob("adapter/*.safetensors"), *run.glob("projector/*.safetensors")]
    return load_file(file)


def same(one: Path, other: Path) -> bool:
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_batch_holds_pictures_or_text_and_not_both(
    train_vision: Callable[..., RunRecord], picture_data: Path, monkeypatch: pytest.MonkeyPatch
):
    batches: list[int] = []

    def counting(pictures: list[Image.Image], processor: Any) -> dict[str, Any]:
        batches.append(len(pictures))
        return original(pictures, processor)

    original = vision_language.pixels
    monkeypatch.setattr(vision_language, "pixels", counting)
    data = {"train": mixed(picture_data, texts=12)}
    train_vision("run", data=data, training={"max_steps": 6, "micro_batch_size": 2})
    assert sorted(batches) == [0] * 6 + [2] * 6  # one epoch of 24 samples, two batches a step
    assert batches != sorted(batches)


def test_samples_kept_together_are_grouped_by_nothing_else(material: Callable[..., Material]):
    assert material(data={"together": "id"}).alike is None
    rows = material()
    assert rows.groups is None
    assert rows.alike == [(bool(row["images"]), len(row["input_ids"])) for row in rows.rows]


def test_the_plan_says_what_the_samples_hold_and_which_fields_nobody_reads(
    material: Callable[..., Material], picture_data: Path
):
    samples = json.loads((picture_data / "train.json").read_text())
    samples[0] |= {"topic": "colours", "difficulty": 3}
    samples[1]["topic"] = ""
    (picture_data / "noted.json").write_text(json.dumps(samples))
    source = str(picture_data / "noted.json")
    remarks = material(data={"train": source}).remarks
    assert remarks[:2] == [
        f"{source}: fields not used: topic, difficulty",
        "12 of 13 samples have pictures; tokens per sample, median and most: 16 and 16 of pictures, 36 and 37 of text",
    ]
    assert f"{source}: fields not used: difficulty" in material(data={"train": source, "ignore": ["topic"]}).remarks


def test_a_text_that_is_cut_is_counted(material: Callable[..., Material], picture_data: Path):
    source = mixed(picture_data, texts=1)
    (said,) = [line for line in material(data={"train": source, "max_length_tokens": 51}).remarks if "cut" in line]
    assert said == f"{source}: 8 samples were longer than data.max_length_tokens and cut"


def test_two_processes_train_on_pictures_and_text_as_one_does(
    train_vision: Callable[..., RunRecord],
    tmp_path: Path,
    write_vision: Callable[..., Path],
    picture_data: Path,
    in_two_processes: Callable[..., str],
):
    data = {"train": mixed(picture_data, texts=10, pictures=10)}  # the fifth batch: half pictures, half text
    changes = {**QUIET, "data": data, "training": {"max_steps": 5, "optimizer": "sgd", "learning_rate": 0.5}}
    train_vision("alone", **changes)
    in_two_processes("train", write_vision(**changes), "--output", tmp_path / "two")
    expected, found = tensors(tmp_path / "alone"), tensors(tmp_path / "two")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(
            found[name], tensor, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name} {text}"
        )


@pytest.fixture
def text_alone(write_vision: Callable[..., Path], material: Callable[..., Material]) -> Callable[..., tuple[Any, Any]]:
    """A model adapted in these parts, and what makes a batch of text alone for it."""

    def made(*parts: str) -> tuple[Any, Any]:
        chosen = {part: {"target_modules": "all-linear", "r": 2} for part in parts}
        recipe: Any = load_recipe(write_vision(adapter={"parts": chosen, "projector": "frozen"}))
        kind, adapter = kind_of(recipe.kind), recipe.adapter
        text = [row for row in material().rows if not row["images"]]
        options = whole_options(recipe.model, adapter.method, adapter.options)
        model = prepare(load_model(recipe.model), adapter.method, options, task_type=None)
        collate = kind.collator(model, kind.load_processor(recipe.model))
        return model, lambda: collate(text)

    return made


@pytest.mark.parametrize(
    ("processes", "parts", "has_picture"),
    [("2", ("language", "vision"), True), ("1", ("vision",), True), ("1", ("language", "vision"), False)],
)
def test_a_batch_of_text_alone_has_a_grey_picture_where_the_tower_must_be_in_the_graph(
    processes: str, parts: tuple[str, ...], has_picture: bool, text_alone: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", processes)
    model, batch = text_alone(*parts)
    given = batch()
    assert ("pixel_values" in given) is has_picture
    model(**given).loss.backward()
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad and "vision_tower" in name}
    assert trained
    assert all((parameter.grad is not None) is has_picture for parameter in trained.values())


def test_a_validation_batch_has_no_sample_that_is_not_there(text_alone: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    model, batch = text_alone("language", "vision")
    (loss,) = sample_losses(model, (batch() for _ in range(1)))
    assert loss.loss > 0


@pytest.mark.parametrize("changes", [{}, ONLY], ids=["both parts", "projector only"])
def test_a_stopped_run_goes_on_to_the_weights_of_an_uninterrupted_one(
    changes: dict[str, Any],
    train_vision: Callable[..., RunRecord],
    picture_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    changes = {**changes, "data": {"train": mixed(picture_data, texts=8)}, "training": {"max_steps": 8}}
    whole, made = train_vision("whole", **changes), 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == 6:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    original = vision_language.collate
    with monkeypatch.context() as patch:
        patch.setattr(vision_language, "collate", interrupting)
        with pytest.raises(KeyboardInterrupt, match=r"stopped after step \d, which is saved"):
            train_vision("stopped", **changes)
    assert 0 < RunRecord.load(tmp_path / "stopped" / "run.json").steps < whole.steps
    record = train_vision("stopped", resume=True, **changes)
    assert same(tmp_path / "stopped", tmp_path / "whole")
    assert record.train_loss == pytest.approx(whole.train_loss, rel=1e-6)


def test_a_killed_run_goes_on_to_the_weights_of_an_uninterrupted_one(
    train_vision: Callable[..., RunRecord],
    write_vision: Callable[..., Path],
    tmp_path: Path,
    start: Callable[..., Program],
):
    changes = {**QUIET, "training": {"max_steps": 40, "save_every_steps": 3}}
    train_vision("whole", **changes)
    run = tmp_path / "killed"
    program = start("train", write_vision(**changes), "--output", run)
    program.reach(lambda: list(run.glob("checkpoints/checkpoint-*/trainer_state.json")))
    program.send(signal.SIGKILL)
    program.finish()
    assert RunRecord.load(run / "run.json").status == "running"
    train_vision("killed", resume=True, **changes)
    assert same(run, tmp_path / "whole")
