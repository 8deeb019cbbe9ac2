"""Settings that this machine or model cannot serve: one line and exit code 2, before any weight is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import Result

from moslora.cli.failures import MISTAKE, _message

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.optimizer=galore_adamw", "training.optimizer galore_adamw cannot be used here (You need to install"),
        ("training.optimizer=adamw_torch_xla", "training.optimizer adamw_torch_xla cannot be used here ("),
        ("adapter.bias=foo", "adapter.bias='foo': give one of none, all, lora_only"),
    ],
)
def test_a_setting_that_cannot_be_served_is_told_before_weights_are_loaded(
    setting: str, message: str, tmp_path: Path, write_recipe: Callable[..., Path], refused: Refused
):
    given = refused("train", write_recipe(), "--set", setting, "--output", tmp_path / "run")  # nothing else on stderr
    assert given.startswith(message)
    assert not (tmp_path / "run").exists()


def test_gradient_checkpointing_that_a_model_lacks_is_told(
    tmp_path: Path, write_recipe: Callable[..., Path], refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transformers.LlamaForCausalLM.supports_gradient_checkpointing", False)
    setting = "training.gradient_checkpointing=true"
    assert refused("train", write_recipe(), "--set", setting, "--output", tmp_path / "run") == (
        "training.gradient_checkpointing: LlamaForCausalLM cannot do it; set it to false"
    )


@pytest.mark.parametrize("optimizer", ["adafactor", "sgd", "adamw_torch_fused"])
def test_an_optimizer_that_works_is_used(
    optimizer: str, tmp_path: Path, write_recipe: Callable[..., Path], moslora: Callable[..., Result]
):
    recipe = write_recipe(training={"max_steps": 1}, evaluation={"tasks": []})
    moslora("train", recipe, "--set", f"training.optimizer={optimizer}", "--output", tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_says_what_to_lower(error: Exception):
    message, code = _message(error)
    assert code == MISTAKE
    assert message.startswith("error: out of memory (")
    assert "training.micro_batch_size" in message
