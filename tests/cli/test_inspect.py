import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Moslora = Callable[..., Result]
Refused = Callable[..., str]
WriteRecipe = Callable[..., Path]


@pytest.mark.parametrize("source", ["run", "run/adapter"])
def test_a_trained_adapter_shows_coverage_and_mixers(finished: Path, moslora: Moslora, source: str):
    lines = moslora("inspect", finished.parent / source).stdout.splitlines()
    assert lines[0] == f"adapter {finished / 'adapter'}"
    assert lines[2] == "parameters  1,856 trained of 104,576 (64 in mixers)"
    assert lines[3] == (
        "coverage    4 of 16 layers that could carry it, 12,288 of 102,400 weights (12%); "
        "not adapted: down_proj, embed_tokens, gate_proj, k_proj, lm_head, o_proj, up_proj"
    )
    rows = [line.split() for line in lines[4:]]
    assert rows[0][:4] == ["module", "layers", "rank", "parameters"]
    assert [row[:4] for row in rows[1:]] == [["q_proj", "2", "4", "1,056"], ["v_proj", "2", "4", "800"]]
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[4:])


def test_one_row_a_layer_and_json(finished: Path, moslora: Moslora):
    shown = moslora("inspect", finished, "--layers").stdout
    found = json.loads(moslora("inspect", finished, "--json").stdout)
    assert found["adapted"] == 4
    assert found["parameters"] == {"trainable": 1856, "total": 104576, "mixer": 64}
    for layer in found["layers"]:
        assert layer["name"] in shown
        assert 0 < layer["effective_rank"] <= 4


def test_a_fixed_mixer_is_not_counted_as_trained(moslora: Moslora, write_recipe: WriteRecipe, tmp_path: Path):
    recipe = write_recipe(adapter={"method": "ts-mixing"}, evaluation={"tasks": []}, training={"max_steps": 1})
    before = json.loads(moslora("inspect", recipe, "--json").stdout)
    moslora("train", recipe, "--output", tmp_path / "run")
    after = json.loads(moslora("inspect", tmp_path / "run", "--json").stdout)
    assert before["parameters"] == after["parameters"] == {"trainable": 1792, "total": 104576, "mixer": 64}
    condition = after["layers"][0]["mixer_condition"]  # the butterfly is singular
    assert condition == "Infinity" or condition > 1e6


def test_a_recipe_shows_its_coverage_without_weights(
    moslora: Moslora, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("moslora.runs.adapters.load_model", lambda _settings: pytest.fail("the model was loaded"))
    lines = moslora("inspect", write_recipe(), "--set", "adapter.r=8").stdout.splitlines()
    assert lines[0] == "recipe tiny, method moslora"
    assert lines[2] == "parameters  3,840 trained of 106,560 (256 in mixers)"
    assert lines[5].split() == ["q_proj", "2", "8", "2,176", "-", "-", "-", "-", "-"]


def test_a_pattern_that_matches_nothing_is_shown(moslora: Moslora, write_recipe: WriteRecipe):
    recipe = write_recipe(
        adapter={"target_modules": ["q_proj", "q_prj"], "rank_pattern": {"kproj": 2}, "modules_to_save": ["hed"]}
    )
    shown = moslora("inspect", recipe).stdout
    assert "NO MATCH    target_modules: 'q_prj' names no module of the model\n" in shown
    assert "NO MATCH    modules_to_save: 'hed' names no module of the model\n" in shown
    assert "NO MATCH    rank_pattern: 'kproj' names no module of the model\n" in shown
    assert "coverage    2 of 16 layers" in shown


def test_a_recipe_that_matches_nothing_at_all_covers_nothing(moslora: Moslora, write_recipe: WriteRecipe):
    shown = moslora("inspect", write_recipe(adapter={"target_modules": ["q_prj"]})).stdout
    assert "parameters  0 trained of 102,720 (0 in mixers)\n" in shown
    assert "coverage    0 of 16 layers that could carry it, 0 of 102,400" in shown
    assert "NO MATCH    target_modules: 'q_prj' names no module of the model\n" in shown


def test_the_experts_of_a_mixture_are_named_where_they_are_left_out(
    moslora: Moslora, write_recipe: WriteRecipe, experts_folder: Path
):
    recipe = write_recipe(
        model={"path": str(experts_folder)}, adapter={"target_modules": "all-linear", "lora_dropout": 0.0}
    )
    lines = moslora("inspect", recipe).stdout.splitlines()
    assert lines[3] == (
        "coverage    8 of 10 layers that could carry it, 6,144 of 63,744 weights (10%);"
        " not adapted: embed_tokens, lm_head"
    )
    assert lines[4] == (
        "left out    experts.down_proj, experts.gate_up_proj, gate.weight: bare parameters, which are no layers"
    )
    found = json.loads(moslora("inspect", recipe, "--set", "adapter.method=lora", "--json").stdout)
    assert (found["adapted"], found["adapted_weights"], found["bare_not_adapted"]) == (8, 43264, [])
    assert "gate.weight" in moslora("inspect", recipe, "--set", "adapter.method=lora").stdout


def test_plain_lora_is_inspected_too(tmp_path: Path, moslora: Moslora, write_recipe: WriteRecipe):
    recipe = write_recipe(adapter={"method": "lora"}, evaluation={"tasks": []}, training={"max_steps": 1})
    moslora("train", recipe, "--output", tmp_path / "run")
    shown = moslora("inspect", tmp_path / "run").stdout
    assert "parameters  1,792 trained of 104,512 (0 in mixers)\n" in shown
    assert "coverage    4 of 16 layers" in shown


def test_another_path_of_the_same_base_is_a_note(tmp_path: Path, finished: Path, moslora: Moslora, model_folder: Path):
    import shutil

    shutil.copytree(model_folder, tmp_path / "moved")
    shown = moslora("inspect", finished, "--base", tmp_path / "moved").stdout
    assert f"note        recorded base {model_folder}, opened with {tmp_path / 'moved'}\n" in shown


def test_mistakes_are_one_line(tmp_path: Path, finished: Path, refused: Refused, write_recipe: WriteRecipe):
    assert refused("inspect", finished, "--set", "seed=1") == f"--set changes a recipe, and {finished} is a folder"
    assert f"use --set model.path={tmp_path}" in refused("inspect", write_recipe(), "--base", tmp_path)
    assert refused("inspect", tmp_path) == (
        f"{tmp_path} has no adapter_config.json: give the folder of a saved adapter"
    )
    near = finished.with_name(finished.name + "x")
    for command in (["inspect"], ["fold"], ["evaluate"], ["generate", "--chat"]):
        assert refused(*command, near) == f"there is no folder {near}; did you mean {finished}?"
    assert refused("inspect", "demmo").startswith("unknown recipe 'demmo'; did you mean 'demo'?")


def test_a_fresh_process_may_import_the_adapter_package_before_peft(write_recipe: WriteRecipe):
    command = [sys.executable, "-m", "moslora", "inspect", str(write_recipe()), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""
    assert json.loads(result.stdout)["adapted"] == 4


def test_a_recipe_for_a_model_of_parts_shows_each_part(moslora: Moslora, write_vision: WriteRecipe):
    shown = moslora("inspect", write_vision(), "--set", "model.quantize=nf4").stdout
    rows = [line.split() for line in shown.splitlines()]
    language, vision = 2 * (4 * 4 * 64 + 3 * 4 * 80 + 7 * 16), 2 * (4 * 2 * 64 + 2 * 2 * 80 + 6 * 4)
    assert ["part", "adapted", "rank", "alpha", "dropout", "mixer", "parameters", "quantised", "gradient"] in rows
    assert ["language", "14", "of", "16", "4", "8", "0", "kaiming", f"{language:,}", "14", "-"] in rows
    assert ["vision", "12", "of", "20", "2", "8", "0", "kaiming", f"{vision:,}", "0", "-"] in rows
    assert ["projector", "whole", "-", "-", "-", "-", "2,112", "0", "-"] in rows
    assert (
        "not adapted: language embed_tokens, language lm_head, vision patch_embedding, vision position_embed" in shown
    )
    assert "note        never trained, since nothing reads it: model.vision_tower.encoder.layers.2\n" in shown
    assert ["language", "q_proj", "2", "4", "544"] in [row[:5] for row in rows]
    assert ["vision", "q_proj", "2", "2", "264"] in [row[:5] for row in rows]


def test_a_projector_trained_alone_is_shown(moslora: Moslora, write_vision: WriteRecipe):
    found = json.loads(moslora("inspect", write_vision(adapter={"parts": None, "projector": "only"}), "--json").stdout)
    assert [part["trained_parameters"] for part in found["parts"]] == [0, 0, 2112]
    assert found["layers"] == []
    assert found["notes"][0] == "the projector alone is trained, no layer carries an adapter"


def test_a_run_of_parts_shows_what_was_seen_of_their_gradients(
    moslora: Moslora, write_vision: WriteRecipe, tmp_path: Path
):
    summary = moslora("train", write_vision(), "--output", tmp_path / "run", "--set", "evaluation.tasks=[]").stdout
    shown = moslora("inspect", tmp_path / "run").stdout
    for text in (summary, shown):
        rows = [line.split() for line in text.splitlines()]
        assert [row[-1] for row in rows if row[:1] == ["projector"]] == ["seen"]
        assert ["vision", "12", "of", "20"] in [row[:4] for row in rows]
    names = {
        layer["name"]: layer["part"]
        for layer in json.loads(moslora("inspect", tmp_path / "run", "--json").stdout)["layers"]
    }
    assert {part for name, part in names.items() if "vision_tower" in name} == {"vision"}
    assert len(names) == 14 + 12
