"""Runs of the tiny recipe, and their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moslora.records import RunRecord
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe


@pytest.fixture
def train(tmp_path: Path, write_recipe: Callable[..., Path]) -> Callable[..., RunRecord]:
    """Train the tiny recipe, with changed groups of settings, in the folder `name`."""

    def run(name: str = "run", *, resume: bool = False, overwrite: bool = False, **changes: Any) -> RunRecord:
        recipe = load_recipe(write_recipe(**changes))
        return run_recipe(recipe, tmp_path / name, resume=resume, overwrite=overwrite, progress=False)

    return run


@pytest.fixture
def weights(tmp_path: Path) -> Callable[[str], dict[str, torch.Tensor]]:
    """The adapter's tensors of the run in the folder of this name."""
    return lambda name: load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
