"""Opening a run's adapter with its base model, from wherever one is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moslora.runs.adapters import load_adapted, open_adapter, text_probe
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe


@pytest.mark.parametrize("method", ["moslora", "lora"])
def test_a_run_whose_base_was_named_by_a_relative_path_opens_from_elsewhere(
    tmp_path: Path, recipe_in: Callable[..., Path], model_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    monkeypatch.chdir(model_folder.parent)
    recipe = recipe_in(
        tmp_path,
        model={"path": model_folder.name},
        adapter={"method": method},
        training={"max_steps": 1},
        evaluation={"tasks": []},
    )
    run_recipe(load_recipe(recipe), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    opened = open_adapter("run")
    assert Path(opened.model.path) == model_folder
    load_adapted(opened)
    assert open_adapter("run/adapter").model.path == str(model_folder)


def test_what_an_export_is_compared_on_needs_no_model(tmp_path: Path, recipe_in: Callable[..., Path]):
    recipe = recipe_in(tmp_path, training={"max_steps": 1}, evaluation={"tasks": []})
    run_recipe(load_recipe(recipe), tmp_path / "run")
    opened = open_adapter(tmp_path / "run")
    model, tokenizer = load_adapted(opened)
    without, with_model = text_probe(opened, tokenizer), text_probe(opened, tokenizer, model)
    assert without.keys() == with_model.keys()
    assert all(torch.equal(without[name], with_model[name]) for name in without)
