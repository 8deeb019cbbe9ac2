"""Every method through a whole run: trained, saved, loaded, evaluated, merged; stopped and resumed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from moslora.adapter.methods import METHODS, known_options
from moslora.errors import CheckpointError, ConfigError
from moslora.records import AdapterPictures, RunRecord
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.exporting import fold_adapter, merge_adapter
from moslora.runs.inspecting import inspect_source
from moslora.runs.language_settings import EvaluationSettings
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.runs.scoring import evaluate_adapter
from moslora.training import language

Train = Callable[..., RunRecord]
SHARED = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
PLAIN_LORA = {"lora", "dora", "rslora", "pissa", "lora+", "moslora-init-only"}


def adapter(method: str, **options: Any) -> dict[str, Any]:
    """The recipe's group for a method; the shared options it does not have are taken back."""
    return {**dict.fromkeys(SHARED), **known_options(method, SHARED), **options, "method": method}


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """What the run saved, adapter or model."""
    folder = run / "model" if (run / "model").is_dir() else run / "adapter"
    return load_file(next(folder.glob("*model.safetensors")))


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 60).view(1, -1)
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, recipe_in: Callable[..., Path]) -> Callable[[str], Path]:
    """A finished run of each method, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("methods")

    def run(method: str) -> Path:
        place = folder / method
        if not place.exists():
            rate = 0.3 if method == "vera" else 0.03  # it learns two vectors a layer
            recipe = load_recipe(recipe_in(folder, adapter=adapter(method), training={"learning_rate": rate}))
            run_recipe(recipe, place, progress=False)
        return place

    return run


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_is_evaluated(method: str, runs: Callable[[str], Path]):
    record = RunRecord.load(runs(method) / "run.json")
    assert record.status == "finished"
    assert record.artifacts == ({"model": "model"} if method == "full" else {"adapter": "adapter"})
    assert [evaluation.when for evaluation in record.evaluations] == ["after"]
    losses = [json.loads(line)["loss"] for line in (runs(method) / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_saved_method_gives_the_evaluated_answers_on_the_untouched_base(method: str, runs: Callable[[str], Path]):
    opened = open_adapter(runs(method))
    evaluate_adapter(
        opened,
        EvaluationSettings(tasks=["everyday"], limit=4),
        with_agreement=False,
        report=lambda _: None,
        progress=False,
    )
    first, again = (
        [json.loads(line)["scores"] for line in path.read_text().splitlines()]
        for path in sorted((runs(method) / "answers").iterdir())
    )
    for a, b in zip(first, again, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_merges_to_the_same_logits(method: str, tmp_path: Path, runs: Callable[[str], Path]):
    opened = open_adapter(runs(method))
    if method == "full":
        with pytest.raises(ConfigError, match="is a full model already: there is nothing to merge"):
            merge_adapter(opened, tmp_path / "merged", dtype=None)
        return
    export = merge_adapter(opened, tmp_path / "merged", dtype=None)
    assert export.drift.is_within
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    adapted = logits(load_adapted(opened)[0])
    torch.testing.assert_close(logits(merged), adapted, rtol=1e-4, atol=1e-5)
    base = AutoModelForCausalLM.from_pretrained(opened.model.path)
    assert (logits(base) - adapted).abs().max() > 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_folding_is_for_mixers_and_others_say_what_they_are(method: str, tmp_path: Path, runs: Callable[[str], Path]):
    opened = open_adapter(runs(method))
    if opened.peft_type == "MOSLORA":
        assert fold_adapter(opened, tmp_path / "folded").drift.is_within
        return
    reason = "is plain LoRA already" if method in PLAIN_LORA else "is a .*, without an adapter|without mixers"
    with pytest.raises(ConfigError, match=reason):
        fold_adapter(opened, tmp_path / "folded")


@pytest.mark.parametrize("method", METHODS)
def test_pictures_are_written_for_methods_with_factors(method: str, runs: Callable[[str], Path]):
    path = runs(method) / "adapter.json"
    assert path.exists() == (method not in {"adalora", "loha", "lokr", "vera", "full"})
    if not path.exists():
        return
    pictures = AdapterPictures.load(path)
    assert pictures.method == method
    assert len(pictures.layers) == 4
    has_moved = method in {"moslora", "linchain", "moslora+dora"}
    assert all(bool(layer.mixer_from_start) == has_moved for layer in pictures.layers)
    assert all(layer.update_norm > 0 for layer in pictures.layers)


@pytest.mark.parametrize("method", METHODS)
def test_inspection_shows_what_each_method_covers(method: str, runs: Callable[[str], Path]):
    found = inspect_source(str(runs(method)))
    assert found.adapted == (0 if method == "full" else 4)
    assert found.parameters["trainable"] > 0
    assert ("full fine-tuning" in " ".join(found.notes)) == (method == "full")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "full"])
def test_an_adapter_file_with_a_tensor_missing_or_too_many_is_refused(
    method: str, tmp_path: Path, runs: Callable[[str], Path]
):
    whole = tensors(runs(method))
    copied = tmp_path / "adapter"
    copied.mkdir()
    (copied / "adapter_config.json").write_bytes((runs(method) / "adapter" / "adapter_config.json").read_bytes())
    opened = open_adapter(runs(method))
    first = min(whole)
    damaged = {
        "missing": {name: tensor for name, tensor in whole.items() if name != first},
        "unexpected": {**whole, first.replace("layers.0", "layers.7"): whole[first].clone()},
        "not fit": {**whole, first: whole[first][..., :-1].contiguous()},
    }
    for word, content in damaged.items():
        save_file(content, copied / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError, match=word) as caught:
            load_adapted(type(opened)(copied, opened.model, opened.peft_type))
        assert "\n" not in str(caught.value)


STOPPED = ["moslora", "moslora-init-only", "flora", "dora", "adalora", "loha", "vera", "pissa", "lora+", "full"]


@pytest.mark.parametrize("method", STOPPED)
def test_a_stopped_run_resumes_to_the_weights_of_an_uninterrupted_one(
    method: str, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
):
    changes = {
        "adapter": adapter(method),
        "data": {"validation_samples": 4},
        "training": {"max_steps": 8, "save_every_steps": 3},
    }
    whole = train("whole", **changes)
    made = 0

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        if made == 5:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    original = language.collate
    with monkeypatch.context() as patch:
        patch.setattr(language, "collate", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train("stopped", **changes)
    assert RunRecord.load(tmp_path / "stopped" / "run.json").steps < 8
    record = train("stopped", resume=True, **changes)
    first, second = tensors(tmp_path / "whole"), tensors(tmp_path / "stopped")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert record.validation_loss == whole.validation_loss
    assert whole.validation_loss is not None


def test_the_control_starts_where_moslora_starts_and_has_loras_parameters(tmp_path: Path, train: Train):
    still = {"learning_rate": 1e-30}
    control = train("control", adapter=adapter("moslora-init-only", mixer="orthogonal"), training=still)
    mixed = train("mixed", adapter=adapter("moslora", mixer="orthogonal"), training=still)
    plain = train("plain", adapter=adapter("lora"), training=still)
    assert control.parameters == plain.parameters
    assert mixed.parameters is not None
    assert mixed.parameters.mixer == 64
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    a, mixer = (tensors(tmp_path / "mixed")[f"{key}{part}.weight"] for part in ("A", "mixer"))
    torch.testing.assert_close(tensors(tmp_path / "control")[f"{key}A.weight"], mixer[0] @ a)


def test_frozen_and_butterfly_mixers_stay_as_they_were_drawn(runs: Callable[[str], Path]):
    for method in ("moslora-frozen", "ts-mixing"):
        assert {layer.mixer_from_start for layer in AdapterPictures.load(runs(method) / "adapter.json").layers} == {0.0}


def test_adalora_really_takes_ranks_away(tmp_path: Path, train: Train):
    train(adapter=adapter("adalora"), training={"max_steps": 12})
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert (config["total_step"], config["init_r"], config["target_r"]) == (12, 6, 4)
    left = sum(sum(kept) for kept in config["rank_pattern"].values())
    assert left == 4 * 4
    assert sum(len(tensor) for name, tensor in tensors(tmp_path / "run").items() if "lora_A" in name) == left


def test_adalora_plans_over_epochs_too(tmp_path: Path, train: Train):
    train(adapter=adapter("adalora"), training={"max_steps": None, "epochs": 1.5, "micro_batch_size": 2})
    config = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
    assert config["total_step"] == 6


def test_ratios_of_learning_rates_move_b_and_the_mixer_further(tmp_path: Path, train: Train):
    def moved(name: str, part: str) -> float:
        return sum(tensor.norm().item() for key, tensor in tensors(tmp_path / name).items() if part in key)

    one_step = {"max_steps": 1, "save_every_steps": None}
    train("plain", adapter=adapter("lora"), training=one_step)
    train("plus", adapter=adapter("lora+", loraplus_lr_ratio=8), training=one_step)
    assert moved("plus", "lora_B") == pytest.approx(8 * moved("plain", "lora_B"), rel=1e-3)
    assert moved("plus", "lora_A") == pytest.approx(moved("plain", "lora_A"), rel=1e-6)

    flora = {"adapter": adapter("flora"), "training": one_step}  # its mixers start at zero
    train("flora", **flora)
    train("faster", **(flora | {"adapter": adapter("flora", mixer_lr_ratio=4)}))
    assert moved("faster", "lora_mixer") == pytest.approx(4 * moved("flora", "lora_mixer"), rel=1e-3)
    assert moved("faster", "lora_B") == pytest.approx(moved("flora", "lora_B"), rel=1e-6)


def test_pissa_is_saved_as_plain_lora_of_twice_the_rank(runs: Callable[[str], Path]):
    config = json.loads((runs("pissa") / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 16, True)


def test_the_validation_loss_is_that_of_the_weights_kept(tmp_path: Path, train: Train):
    worsening = {
        "max_steps": 2,
        "evaluate_every_steps": 1,
        "save_every_steps": 1,
        "learning_rate": 10.0,
        "schedule": "constant",
    }
    losses = {}
    for keep_best in (False, True):
        name = str(keep_best)
        record = train(name, data={"validation_samples": 4}, training={**worsening, "keep_best": keep_best})
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        logged = [line["eval_loss"] for line in lines if "eval_loss" in line]
        assert len(logged) == 2
        losses[keep_best] = (record.validation_loss, logged)
    kept = [json.loads(line) for line in (tmp_path / "True" / "validation.jsonl").read_text().splitlines()]
    assert len(kept) == 4
    weighted = sum(line["loss"] * line["tokens"] for line in kept) / sum(line["tokens"] for line in kept)
    assert losses[True][0] == pytest.approx(weighted)
    assert losses[True][0] == pytest.approx(losses[True][1][0], rel=1e-6)
    assert losses[False][0] == pytest.approx(losses[False][1][1], rel=1e-6)
    assert train("none").validation_loss is None
    assert not (tmp_path / "none" / "validation.jsonl").exists()


def test_adaloras_penalty_is_no_part_of_the_validation_loss(tmp_path: Path, train: Train):
    changes = {"data": {"validation_samples": 4}, "training": {"learning_rate": 1e-30}}
    adalora = train("adalora", adapter=adapter("adalora", orth_reg_weight=100.0), **changes)
    assert adalora.validation_loss == pytest.approx(train("lora", adapter=adapter("lora"), **changes).validation_loss)
    config = json.loads((tmp_path / "adalora" / "adapter" / "adapter_config.json").read_text())
    assert config["orth_reg_weight"] == 100.0


@pytest.mark.parametrize(
    ("method", "quantisation"), [("pissa", "nf4"), ("full", "int8"), ("loha", "nf4"), ("dora", "int8")]
)
def test_a_method_that_cannot_train_on_a_quantised_base_says_so(method: str, quantisation: str, train: Train):
    message = f"method '{method}' does not work on a base with model.quantize: {quantisation}"
    with pytest.raises(ConfigError, match=message):
        train(adapter=adapter(method), model={"quantize": quantisation})


def test_a_run_of_full_fine_tuning_takes_no_other_base(runs: Callable[[str], Path]):
    with pytest.raises(ConfigError, match="holds a fully trained model, which has no other base"):
        open_adapter(runs("full"), base="elsewhere")
