"""Runs of vision-language models, end to end on a tiny LLaVA with random weights and pictures made here."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moslora.adapter.part_layers import PROJECTOR
from moslora.adapter.projector import projector_of
from moslora.errors import ConfigError, DataError
from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.exporting import fold_adapter, merge_adapter
from moslora.runs.folder import RunFolder
from moslora.runs.inspecting import inspect_source
from moslora.runs.kinds import kind_of
from moslora.runs.models import load_model
from moslora.runs.predicting import predict
from moslora.runs.recipe import load_recipe
from moslora.runs.run import plan_run, run_recipe
from moslora.runs.scoring import evaluate_adapter
from moslora.runs.steps import as_loaded, gradient_check, prepared
from moslora.runs.unfinished import open_reached
from moslora.runs.vision_settings import VisionEvaluationSettings

WriteVision = Callable[..., Path]
LINEAR = {"target_modules": "all-linear", "r": 2}
BOTH: dict[str, Any] = {"parts": {"language": LINEAR, "vision": LINEAR}, "projector": "trained"}


def test_both_parts_and_the_projector_are_trained_scored_and_saved(write_vision: WriteVision, tmp_path: Path):
    record = run_recipe(load_recipe(write_vision()), tmp_path / "run", progress=False)
    assert record.status == "finished"
    assert [(e.task, e.when, e.total) for e in record.evaluations] == [
        ("easy-vqa", "after", 6),
        ("easy-vqa", "picture blanked", 6),
    ]
    model, _ = load_adapted(open_adapter(tmp_path / "run"))
    trained = {name for name, _ in model.named_parameters() if "lora_" in name}
    assert any("vision_tower" in name for name in trained)
    assert any("language_model" in name for name in trained)
    assert not any("vision_tower.encoder.layers.2" in name for name in trained)  # its output is never read
    config = model.peft_config["default"]
    assert config.r == 4
    assert record.coverage
    assert record.coverage.parts
    language, vision, projector = record.coverage.parts
    assert (language.adapted, language.layers, language.ranks) == (2 * 7, 2 * 7 + 2, [4])
    assert (vision.adapted, vision.layers, vision.ranks) == (2 * 6, 3 * 6 + 2, [2])
    assert (projector.adapted, projector.whole_parameters) == (0, 2 * 32 * 32 + 2 * 32)
    assert [part.dead for part in record.coverage.parts] == [[], [], []]
    assert [part.quantised for part in record.coverage.parts] == [0, 0, 0]


def test_it_is_folded_and_merged_on_pictures(write_vision: WriteVision, tmp_path: Path):
    run_recipe(load_recipe(write_vision()), tmp_path / "run", progress=False)
    opened = open_adapter(tmp_path / "run")
    assert fold_adapter(opened, tmp_path / "folded").drift.is_within
    assert merge_adapter(opened, tmp_path / "merged", dtype=None).drift.is_within
    for place in ("folded", "merged"):
        again = open_adapter(tmp_path / place)
        assert again.model.kind == "vision_language"
        load_adapted(again)


def test_the_projector_alone_is_trained_and_saved(write_vision: WriteVision, tmp_path: Path):
    recipe = write_vision(adapter={"parts": None, "projector": "only"})
    record = run_recipe(load_recipe(recipe), tmp_path / "run", progress=False)
    assert record.artifacts == {"projector": "projector"}
    assert record.parameters
    assert record.parameters.trainable == 2 * 32 * 32 + 2 * 32
    load_adapted(open_adapter(tmp_path / "run"))
    assert RunRecord.load(tmp_path / "run" / "run.json").status == "finished"


def test_a_projector_trains_in_float32_and_is_scored_as_it_is_loaded(write_vision: WriteVision, tmp_path: Path):
    recipe = load_recipe(write_vision(), ["model.dtype=bfloat16", "evaluation.tasks=[]"])
    model = prepared(recipe, plan_run(recipe, RunFolder(tmp_path / "plan")), load_model(recipe.model))
    prefix = kind_of(recipe.kind).parts(model)[PROJECTOR]
    trained = [p for name, p in model.named_parameters() if prefix in name and p.requires_grad]
    assert [p.dtype for p in trained] == [torch.float32] * 4
    as_loaded(recipe, model)
    assert [p.dtype for name, p in model.named_parameters() if prefix in name] == [torch.bfloat16] * 8
    run_recipe(recipe, tmp_path / "run", progress=False)
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for key, tensor in saved.items() if prefix in key} == {torch.float32}


def test_parts_that_would_see_no_picture_are_refused_before_weights_are_loaded(
    write_vision: WriteVision, tmp_path: Path
):
    turns = [{"from": "human", "value": "Say red."}, {"from": "gpt", "value": "red"}]
    (tmp_path / "words.json").write_text(json.dumps([{"id": str(n), "conversations": turns} for n in range(8)]))
    words = {"data": {"train": str(tmp_path / "words.json")}}
    for adapter, idle in [
        ({}, "projector and vision"),
        ({"projector": "frozen"}, "vision"),
        ({"parts": None, "projector": "only"}, "projector"),
        ({"parts": None, "projector": None, "method": "full"}, "projector and vision"),
    ]:
        given = {name: value for name, value in (BOTH | adapter).items() if value is not None}
        recipe = load_recipe(write_vision(**words), [f"adapter={json.dumps(given)}"])
        with pytest.raises(DataError, match=f"no training sample has a picture, so {idle} would not be trained: add"):
            plan_run(recipe, RunFolder(tmp_path / "run"))
    part = '{"language": {"r": 2}}'
    recipe = load_recipe(write_vision(**words), [f"adapter.parts={part}", "adapter.projector=frozen"])
    assert len(plan_run(recipe, RunFolder(tmp_path / "run")).material.rows) == 8


def test_a_picture_whose_pixels_are_broken_is_named_with_its_sample(
    write_vision: WriteVision, picture_data: Path, tmp_path: Path
):
    path = picture_data / "easy-vqa" / "images" / "0.png"
    content = bytearray(path.read_bytes())
    content[45:60] = bytes(15)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.json: sample 1: image '.*0\.png': broken or cut off"):
        run_recipe(load_recipe(write_vision()), tmp_path / "run", progress=False)


def test_pissa_saves_the_projector_that_trained_beside_it(
    write_vision: WriteVision, llava_folder: Path, tmp_path: Path
):
    recipe = load_recipe(write_vision(), ["adapter.method=pissa", "evaluation.tasks=[]"])
    run_recipe(recipe, tmp_path / "run", progress=False)
    model, _ = load_adapted(open_adapter(tmp_path / "run"))
    prefix = kind_of(recipe.kind).parts(model)[PROJECTOR]
    before = {name: tensor for name, tensor in load_model(recipe.model).named_parameters() if prefix in name}
    after = projector_of(model, prefix)
    assert len(before) == 4
    assert not any(
        torch.equal(tensor, after.get_parameter(name.removeprefix(f"{prefix}."))) for name, tensor in before.items()
    )


def test_gradients_are_watched_until_a_picture_must_have_come(write_vision: WriteVision, tmp_path: Path):
    recipe = load_recipe(write_vision(), ["training.max_steps=100"])
    plan = plan_run(recipe, RunFolder(tmp_path / "run"))
    assert plan.material.complete_share == 12 / 13

    def steps(**changes: Any) -> int:
        material = replace(plan.material, **changes)
        check = gradient_check(recipe, replace(plan, material=material), {"vision": ""})
        assert check
        return check.steps

    assert steps() == 15  # a batch is of pictures or of text
    assert steps(alike=None) == 4
    assert steps(alike=None, complete_share=0.1) == 35  # (1 - 0.1) ** (35 * 4) is about e ** -14
    assert steps(complete_share=0.0) == 4
    assert steps(complete_share=0.001) == 100
    assert gradient_check(recipe, plan, {}) is None


def test_what_earlier_processes_saw_of_the_gradients_stays_in_the_record(write_vision: WriteVision, tmp_path: Path):
    recipe = load_recipe(write_vision(), ["training.max_steps=6", "evaluation.tasks=[]"])
    run_recipe(recipe, tmp_path / "run", progress=False)
    record = RunRecord.load(tmp_path / "run" / "run.json")
    (tmp_path / "run" / "checkpoints" / "checkpoint-6" / "trainer_state.json").unlink()
    record.status, record.artifacts = "interrupted", {}
    record.save(tmp_path / "run" / "run.json")
    again = run_recipe(recipe, tmp_path / "run", resume=True, progress=False)
    assert again.status == "finished"
    assert again.coverage
    assert record.coverage == again.coverage
    assert [part.dead for part in again.coverage.parts or ()] == [[], [], []]


KEPT = {"vision": 3 * 6 + 2, "projector": 2}


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_only_the_language_model_is_quantised(write_vision: WriteVision, tmp_path: Path, quantize: str):
    pytest.importorskip("bitsandbytes")
    recipe = load_recipe(write_vision(), [f"model.quantize={quantize}", "evaluation.limit=2"])
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.coverage
    language, vision, projector = record.coverage.parts or ()
    assert (language.quantised, language.adapted, language.dead) == (2 * 7, 2 * 7, [])
    assert (vision.quantised, projector.quantised) == (0, 0)
    assert (vision.layers, projector.layers) == (KEPT["vision"], KEPT["projector"])
    planned = inspect_source(str(write_vision()), [f"model.quantize={quantize}"])
    assert [part["quantised"] for part in planned.parts] == [14, 0, 0]
    opened = open_adapter(tmp_path / "run")
    assert fold_adapter(opened, tmp_path / "folded").drift.is_within
    with pytest.raises(ConfigError, match=r"merging does not quantise again: choose the dtype .* with --dtype"):
        merge_adapter(opened, tmp_path / "merged", dtype=None)
    export = merge_adapter(opened, tmp_path / "merged", dtype="float32")
    assert export.drift.max_difference < 0.05 * export.drift.largest_output


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_beside_a_4_bit_language_model_the_rest_trains_in_float32_and_loads_in_16_bits(
    write_vision: WriteVision, tmp_path: Path
):
    pytest.importorskip("bitsandbytes")
    settings = ["model.quantize=nf4", "model.dtype=bfloat16", "training.gradient_checkpointing=true"]
    recipe = load_recipe(write_vision(), [*settings, "evaluation.limit=2"])
    plan = plan_run(recipe, RunFolder(tmp_path / "plan"))
    loaded = load_model(recipe.model)
    kept = {name: p.dtype for name, p in loaded.named_parameters() if "language_model.layers" not in name}
    assert {*kept.values()} == {torch.bfloat16}
    model = prepared(recipe, plan, loaded)
    assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {torch.float32}
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.coverage
    assert [part.dead for part in record.coverage.parts or ()] == [[], [], []]
    assert fold_adapter(open_adapter(tmp_path / "run"), tmp_path / "folded").drift.is_within


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_the_mixers_of_both_parts_are_in_the_path_of_a_4_bit_model(write_vision: WriteVision, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    recipe = load_recipe(write_vision(), ["model.quantize=nf4", "evaluation.tasks=[]"])
    run_recipe(recipe, tmp_path / "run", progress=False)
    model, processor = load_adapted(open_adapter(tmp_path / "run"), is_trainable=True)
    inputs = kind_of(recipe.kind).probe(processor, model, prompt="chat")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    mixers = {name: p for name, p in model.named_parameters() if "lora_mixer" in name}
    assert len(mixers) == 2 * 7 + 2 * 6
    assert all(p.grad is not None and p.grad.any() for p in mixers.values())
    with torch.no_grad():
        before = model(**inputs).logits
        for part in ("language_model", "vision_tower"):
            for name, mixer in mixers.items():
                mixer.mul_(2 if part in name else 1)
            changed = model(**inputs).logits
            assert (changed - before).abs().max() > 1e-4
            before = changed


@pytest.mark.parametrize(
    "settings", [["adapter.projector=trained"], ["adapter.projector=only", "adapter.parts=null", "adapter.method=lora"]]
)
def test_all_parts_of_a_stopped_run_are_taken_from_its_checkpoint(
    settings: list[str], write_vision: WriteVision, tmp_path: Path
):
    recipe = load_recipe(write_vision(), [*settings, "evaluation.tasks=[]"])
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    (kept,) = record.artifacts
    record.status, record.artifacts = "interrupted", {}
    record.save(tmp_path / "run" / "run.json")
    taken = open_reached(tmp_path / "run").adapter
    assert taken == tmp_path / "run" / f"step-{record.steps}" / kept
    (file,) = (path.name for path in taken.glob("*.safetensors"))
    ours, theirs = load_file(taken / file), load_file(tmp_path / "run" / kept / file)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_an_interrupted_4_bit_run_is_resumed_to_the_same_weights(write_vision: WriteVision, tmp_path: Path):
    pytest.importorskip("bitsandbytes")
    recipe = load_recipe(write_vision(), ["model.quantize=nf4", "evaluation.tasks=[]"])
    run_recipe(recipe, tmp_path / "whole", progress=False)
    run_recipe(recipe, tmp_path / "cut", progress=False)
    cut = RunFolder(tmp_path / "cut")
    (cut.checkpoints / "checkpoint-4" / "trainer_state.json").unlink()
    record = cut.record()
    record.status, record.artifacts = "interrupted", {}
    record.save(cut.record_path)
    assert run_recipe(recipe, cut.path, resume=True, progress=False).status == "finished"
    whole, again = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, again[key]) for key, tensor in whole.items())


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_a_quantisation_that_reaches_no_layer_is_refused(write_vision: WriteVision, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("bitsandbytes")
    everything = {"vision_language": ["model", "lm_head"]}
    monkeypatch.setattr("moslora.runs.models.UNQUANTISED", everything)
    recipe = load_recipe(write_vision(), ["model.quantize=nf4"])
    with pytest.raises(ConfigError, match=r"nf4 quantised no layer of Llava\w+: .* outside model, lm_head"):
        load_model(recipe.model)


def test_answers_are_written_for_a_program_that_judges_them(write_vision: WriteVision, tmp_path: Path):
    run_recipe(load_recipe(write_vision(training={"max_steps": 1})), tmp_path / "run", progress=False)
    picture = base64.b64encode((tmp_path / "data/easy-vqa/images/0.png").read_bytes()).decode()
    rows = [["index", "question", "answer", "image", "category"], ["7", "What colour?", "red", picture, "rec"]]
    (tmp_path / "data" / "mm-vet.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    settings = VisionEvaluationSettings(tasks=["mm-vet"], data=str(tmp_path / "data"))
    opened = open_adapter(tmp_path / "run")
    [path] = predict(opened, settings, tmp_path / "predictions", report=lambda _line: None)
    assert path.name.startswith("run_MMVet.")
    text = path.read_text()
    assert "prediction" in text
    assert picture not in text
    asked = load_recipe(write_vision("judged", evaluation={"tasks": ["mm-vet"]}))
    with pytest.raises(ConfigError, match="mm-vet is scored by another model"):
        plan_run(asked, RunFolder(tmp_path / "judged"))
    with pytest.raises(ConfigError, match="mm-vet is scored by another model"):
        evaluate_adapter(opened, settings, with_agreement=False, report=lambda _line: None, progress=False)
