"""Opening a run's adapter with its base model, from wherever one is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moslora.runs.adapters import load_adapted, open_adapter
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
