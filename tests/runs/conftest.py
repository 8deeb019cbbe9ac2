"""Runs of the tiny recipe, and their weights."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moslora.records import RunRecord
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.training import language


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


@pytest.fixture
def signal_at_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sends this process a signal when the Trainer makes its n-th batch."""

    def arrange(number: int, times: int = 1) -> None:
        made = 0

        def counting(*arguments: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            for _ in range(times if made == number else 0):
                signal.raise_signal(signal.SIGINT)
            return original(*arguments, **options)

        original = language.collate
        monkeypatch.setattr(language, "collate", counting)

    return arrange
