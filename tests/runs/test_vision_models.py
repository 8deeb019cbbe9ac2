"""Runs of models other than LLaVA that read pictures, on tiny ones with random weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer

from moslora.adapter.part_gradients import gradients_by_part
from moslora.adapter.part_layers import LANGUAGE, PROJECTOR, VISION, dead_modules, parts_in
from moslora.errors import ConfigError, DataError
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.exporting import fold_adapter
from moslora.runs.folder import RunFolder
from moslora.runs.kinds import kind_of
from moslora.runs.models import load_model
from moslora.runs.processors import placeholder
from moslora.runs.recipe import load_recipe
from moslora.runs.run import plan_run, run_recipe
from moslora.runs.steps import prepared
from tests.vision_models import NAMES, QWENS

Write = Callable[..., Path]
PROJECTOR_SIZES = {
    "gemma3": 32 * 32 + 32,
    "idefics3": 4 * 32 * 32,
    "smolvlm": 4 * 32 * 32,
    "mistral3": 32 + 4 * 32 * 32 + 2 * 32 * 32,
    "qwen2_vl": 128 * 128 + 128 + 128 * 32 + 32 + 2 * 32,
    "qwen2_5_vl": 128 * 128 + 128 + 128 * 32 + 32 + 32,
    "qwen3_vl": 128 * 128 + 128 + 128 * 32 + 32 + 2 * 32,
}
TOWER_LAYERS = dict.fromkeys(NAMES, 12) | {
    "mistral3": 14,
    "qwen2_vl": 8,
    "qwen2_5_vl": 10,
    "qwen3_vl": 10,
}  # its deep mergers' too
TURNS = ["<image> or <image>, which is red?", "the first", "And the other?", "blue"]


@pytest.fixture
def several(picture_data: Path) -> dict[str, Any]:
    """Data that begin with a chat of two turns and two pictures of different shapes, and end with one of none."""
    noise = np.random.default_rng(0).integers(0, 256, (31, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture_data / "easy-vqa" / "images" / "wide.png")
    images = [f"easy-vqa/images/{name}.png" for name in ("0", "wide")]
    turns = [{"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(TURNS)]
    samples = json.loads((picture_data / "train.json").read_text())
    (picture_data / "several.json").write_text(
        json.dumps([{"id": "two", "image": images, "conversations": turns}, *samples])
    )
    return {"train": str(picture_data / "several.json")}


@pytest.fixture
def planned(write_vision_of: Write, tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    """A recipe for a model with changes, and its plan."""

    def make(name: str, **changes: Any) -> tuple[Any, Any]:
        recipe = load_recipe(write_vision_of(name, **changes))
        return recipe, plan_run(recipe, RunFolder(tmp_path / "plan"))

    return make


@pytest.fixture
def batches(
    planned: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, Any, list[dict[str, Any]]]]:
    """The model that a recipe trains, what makes its batches, and its rows."""

    def make(name: str, *, processes: int = 1, **changes: Any) -> tuple[Any, Any, list[dict[str, Any]]]:
        recipe, plan = planned(name, **changes)
        model = prepared(recipe, plan, load_model(recipe.model))
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        collate = kind_of(recipe.kind).collator(model, plan.processor)
        return model, collate, list(plan.material.rows)

    return make


@pytest.mark.parametrize("name", NAMES)
def test_only_the_answers_of_a_chat_with_pictures_are_learned(
    name: str, planned: Callable[..., tuple[Any, Any]], several: dict[str, Any], vision_folder: Callable[[str], Path]
):
    _, plan = planned(name, data=several)
    row = plan.material.rows[0]
    tokenizer = AutoTokenizer.from_pretrained(vision_folder(name))
    learned = tokenizer.decode([label for label in row["labels"] if label >= 0])
    end, space = "<|end|>", ""
    if name in ("idefics3", "smolvlm"):
        end, space = "<end_of_utterance>", " "  # which the template puts before an answer, and not into its prompt
    assert learned == f"{space}the first{end}{space}blue{end}"
    whole = tokenizer.decode(row["input_ids"])
    assert whole.index("which is red?") < whole.index("the first") < whole.index("And the other?")
    assert any("pictures" in remark for remark in plan.material.remarks)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_has_the_loss_of_its_rows_one_by_one(name: str, batches: Callable[..., Any], several: dict[str, Any]):
    model, collate, rows = batches(name, data=several)
    chosen = [rows[0], rows[3], rows[-1]]  # two pictures, one, none
    assert [len(row["images"]) for row in chosen] == [2, 1, 0]
    model.eval()
    with torch.no_grad():
        alone = [model(**collate([row]), num_items_in_batch=torch.tensor(1)).loss for row in chosen]
        together = model(**collate(chosen), num_items_in_batch=torch.tensor(1)).loss
    torch.testing.assert_close(together, sum(alone), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_picture_is_cut(name: str, planned: Callable[..., tuple[Any, Any]], several: dict[str, Any]):
    _, plan = planned(name, data=several)
    row, number = plan.material.rows[0], placeholder(plan.processor)[1]
    last = len(row["input_ids"]) - row["input_ids"][::-1].index(number)
    _, cut = planned(name, data={**several, "max_length_tokens": len(row["input_ids"]) - 1})
    assert len(cut.material.rows[0]["input_ids"]) == len(row["input_ids"]) - 1
    with pytest.raises(DataError, match=rf"sample 1: data.max_length_tokens {last - 1} would cut a picture"):
        planned(name, data={**several, "max_length_tokens": last - 1})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("processes", "parts", "has_picture"),
    [(2, (LANGUAGE, VISION), True), (1, (VISION,), True), (1, (LANGUAGE, VISION), False)],
)
def test_text_alone_has_a_grey_picture_where_the_tower_must_be_in_the_graph(
    name: str, processes: int, parts: tuple[str, ...], has_picture: bool, batches: Callable[..., Any]
):
    chosen = {part: {"target_modules": "all-linear", "r": 2} for part in parts}
    model, collate, rows = batches(name, processes=processes, adapter={"parts": chosen, "projector": "frozen"})
    given = collate([row for row in rows if not row["images"]])
    assert ("pixel_values" in given) is has_picture
    model(**given).loss.backward()
    prefix = parts_in(model.get_base_model())[VISION]
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad and prefix in name}
    assert trained
    assert all((parameter.grad is not None) is has_picture for parameter in trained.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_every_module_of_every_part_has_a_gradient(
    name: str, is_checkpointed: bool, batches: Callable[..., Any], several: dict[str, Any]
):
    model, collate, rows = batches(name, data=several, training={"gradient_checkpointing": is_checkpointed})
    if is_checkpointed:
        model.activation_checkpointing_enable()
    model.train()
    model(**collate(rows[:3])).loss.backward()
    found = gradients_by_part(model, parts_in(model.get_base_model()))
    assert {part: len(one.dead) for part, one in found.items()} == {LANGUAGE: 0, VISION: 0, PROJECTOR: 0}
    assert [len(found[part].alive) for part in (LANGUAGE, VISION)] == [14, TOWER_LAYERS[name]]


@pytest.mark.parametrize("name", NAMES)
def test_the_projector_alone_is_trained_and_loaded(name: str, write_vision_of: Write, tmp_path: Path):
    recipe = load_recipe(write_vision_of(name, adapter={"parts": None, "projector": "only"}))
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.parameters
    assert record.parameters.trainable == PROJECTOR_SIZES[name]
    assert record.coverage
    assert [part.trained_parameters for part in record.coverage.parts or ()] == [0, 0, PROJECTOR_SIZES[name]]
    load_adapted(open_adapter(tmp_path / "run"))


@pytest.mark.parametrize("name", ["gemma3", "mistral3", "qwen3_vl"])
def test_a_projector_trains_in_float32_in_a_model_of_16_bits(name: str, write_vision_of: Write, tmp_path: Path):
    recipe = load_recipe(write_vision_of(name, model={"dtype": "bfloat16"}, evaluation={"limit": 2}))
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.status == "finished"
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert fold_adapter(open_adapter(tmp_path / "run"), tmp_path / "folded").drift.is_within


def test_the_pooling_head_of_a_gemma_is_never_trained(batches: Callable[..., Any]):
    model, *_ = batches("gemma3")
    base = model.get_base_model()
    base.get_submodule("model.vision_tower").head = torch.nn.Linear(2, 2)  # some towers bring theirs
    assert dead_modules(base, parts_in(base)) == ["model.vision_tower.head"]


def test_the_tokens_of_a_gemma_picture_see_one_another(batches: Callable[..., Any], several: dict[str, Any]):
    model, collate, rows = batches("gemma3", data=several)
    given = collate([rows[0]])
    assert given["token_type_ids"].tolist() == [[int(number == 261) for number in rows[0]["input_ids"]]]
    labels, kept = given.pop("labels"), given.pop("logits_to_keep", None)
    assert kept is None or labels.shape[1] == kept
    first = rows[0]["input_ids"].index(261)
    model.eval()
    with torch.no_grad():
        seen = model(**given).logits
        causal = model(**given | {"token_type_ids": torch.zeros_like(given["token_type_ids"])}).logits
    changed = (seen - causal).abs().amax(dim=(0, 2))
    assert changed[:first].max() == 0
    assert changed[first] > 1e-5


@pytest.mark.parametrize("name", QWENS)
def test_the_tokens_of_a_qwen_picture_have_places_in_two_dimensions(
    name: str, batches: Callable[..., Any], several: dict[str, Any]
):
    model, collate, rows = batches(name, data=several)
    given = collate(rows[:3])
    assert "position_ids" not in given
    places, _ = model.get_base_model().model.get_rope_index(
        **{key: given[key] for key in ("input_ids", "mm_token_type_ids", "image_grid_thw", "attention_mask")}
    )
    shown = places[:, 0, given["mm_token_type_ids"][0].bool()]
    assert not torch.equal(shown[1], shown[2])
    model.eval()
    with torch.no_grad():
        expected = model(**given, position_ids=places).loss
        assert torch.equal(model(**given).loss, expected)
        flat = places[:1].expand(3, -1, -1)
        assert not torch.equal(model(**given, position_ids=flat).loss, expected)


@pytest.mark.parametrize("name", ["gemma3", "mistral3", "qwen2_5_vl", "qwen3_vl"])
def test_a_step_is_the_same_in_however_many_batches(name: str, write_vision_of: Write, tmp_path: Path):
    found = []
    for size in (4, 1):
        step = {
            "micro_batch_size": size,
            "optimizer": "sgd",
            "learning_rate": 0.5,
            "max_steps": 1,
            "save_every_steps": 1,
        }
        recipe = load_recipe(write_vision_of(name, training=step, evaluation={"tasks": []}))
        run_recipe(recipe, tmp_path / f"run {size}", progress=False)
        found.append(load_file(tmp_path / f"run {size}" / "adapter" / "adapter_model.safetensors"))
    for key, tensor in found[0].items():
        torch.testing.assert_close(found[1][key], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["gemma3", "idefics3", "qwen3_vl"])
def test_features_are_not_kept(name: str, write_vision_of: Write, tmp_path: Path):
    recipe = load_recipe(write_vision_of(name, data={"cache_features": True}))
    with pytest.raises(ConfigError, match=rf"data.cache_features: a '{name}' model .* \(allowed: 'llava'\); set"):
        plan_run(recipe, RunFolder(tmp_path / "run"))


def test_pictures_processed_otherwise_than_in_training_are_refused(write_vision_of: Write, tmp_path: Path):
    recipe = load_recipe(write_vision_of("smolvlm", evaluation={"tasks": []}, training={"max_steps": 1}))
    run_recipe(recipe, tmp_path / "run", progress=False)
    path = tmp_path / "run" / "adapter" / "processor_config.json"
    saved = json.loads(path.read_text())
    saved["image_processor"]["size"] = {"longest_edge": 84}
    path.write_text(json.dumps(saved))
    asked = recipe.model.model_copy(update={"padding": "own"})
    asked.model_fields_set.add("padding")
    with pytest.raises(ConfigError, match="not be processed as in training: size was"):
        kind_of(recipe.kind).load_processor(asked, saved=path.parent)


@pytest.mark.parametrize("name", ["gemma3", "idefics3", "qwen2_5_vl"])
@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_only_the_language_model_is_quantised(name: str, write_vision_of: Write, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    recipe = load_recipe(write_vision_of(name, model={"quantize": "nf4"}, evaluation={"tasks": []}))
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.coverage
    assert [part.quantised for part in record.coverage.parts or ()] == [14, 0, 0]
