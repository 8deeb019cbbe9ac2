"""`moslora methods`: every method with its parameters on a model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from moslora.adapter.methods import METHODS

Moslora = Callable[..., Result]


def test_every_method_is_listed_with_its_parameters(moslora: Moslora, write_recipe: Callable[..., Path]):
    rows = json.loads(moslora("methods", write_recipe(), "--json").stdout)
    assert [row["name"] for row in rows] == list(METHODS)
    counts = {row["name"]: row["trainable"] for row in rows}
    assert counts["lora"] == counts["moslora-init-only"] == counts["ts-mixing"] == counts["pissa"] == 1792
    assert counts["moslora"] == counts["flora"] == 1792 + 4 * 16
    assert counts["linchain"] == 1792 + 3 * 4 * 16
    assert counts["dora"] == 1792 + 2 * (64 + 32)
    assert counts["vera"] < counts["lora"] < counts["adalora"] < counts["loha"] < counts["full"]
    assert {row["name"]: row["relative"] for row in rows}["lora"] == 1.0


def test_the_table_shows_what_each_is_and_cannot_do(moslora: Moslora, write_recipe: Callable[..., Path]):
    result = moslora("methods", write_recipe(adapter={"r": 2}))
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert lines["method"].split() == ["method", "parameters", "of", "lora", "what", "it", "is", "limits"]
    assert " 896 " in lines["lora"]
    assert METHODS["pissa"].limits in lines["pissa"]
    assert all(METHODS[name].summary in lines[name] for name in METHODS)


def test_settings_change_the_recipe(moslora: Moslora, write_recipe: Callable[..., Path]):
    rows = json.loads(moslora("methods", write_recipe(), "--set", "adapter.r=8", "--json").stdout)
    assert {row["name"]: row["trainable"] for row in rows}["lora"] == 2 * 1792


def test_what_one_method_cannot_do_is_said_and_the_others_are_counted(
    moslora: Moslora, write_recipe: Callable[..., Path]
):
    result = moslora("methods", write_recipe(adapter={"r": 3}))
    assert "ts-mixing" in result.stdout
    assert "not counted: r=3 is odd" in result.stderr


def test_what_methods_leave_out_that_lora_adapts_is_said(
    moslora: Moslora, write_recipe: Callable[..., Path], experts_folder: Path
):
    recipe = write_recipe(
        model={"path": str(experts_folder)}, adapter={"target_modules": "all-linear", "lora_dropout": 0.0}
    )
    said = moslora("methods", recipe).stderr
    assert (
        "not on experts.down_proj, experts.gate_up_proj, gate.weight, which lora adapts: ts-mixing, moslora, " in said
    )
    assert "does not work with use_dora=True. (PEFT takes the targets for the experts, which the method cannot" in said
    with_dropout = moslora("methods", recipe, "--set", "adapter.lora_dropout=0.1")  # no LoRA then, and the others
    assert "leave them out, adapter.target_modules=[k_proj,o_proj,q_proj,v_proj])" in with_dropout.stderr
    rows = {row["name"]: row for row in json.loads(moslora("methods", recipe, "--json").stdout)}
    assert rows["moslora"]["left_out"] == ["experts.down_proj", "experts.gate_up_proj", "gate.weight"]
    assert rows["rslora"]["left_out"] == rows["full"]["left_out"] == []


def test_targets_that_no_adapter_can_have_are_refused(refused: Callable[..., str], write_recipe: Callable[..., Path]):
    recipe = write_recipe(adapter={"target_modules": ["q_prj"]})
    assert refused("methods", recipe).startswith("target_modules: 'q_prj' matches no module of the model")


def test_without_the_demo_model_the_methods_are_listed_all_the_same(moslora: Moslora, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moslora.runs.models.DEMO_PACKAGE", "no-such-package")
    result = moslora("methods")
    assert len(result.stdout.splitlines()) == 1 + len(METHODS)
    assert "not counted: model.path 'smollm2' comes with a package" in result.stderr
    assert result.stderr.count("not counted") == 1


def test_a_model_that_is_not_there_is_refused(refused: Callable[..., str], write_recipe: Callable[..., Path]):
    assert refused("methods", write_recipe(model={"path": "/nowhere/tiny"})).startswith(
        "model.path: there is no folder /nowhere/tiny"
    )
