"""PiSSA: it starts from the base's largest singular values, and ends as plain LoRA on the untouched base."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from moslora.errors import ConfigError


def start(options: Mapping[str, Any], _total_steps: int) -> dict[str, Any]:
    """PEFT's name of the start, as given or by default. Raises ConfigError for another start than PiSSA's."""
    given = options.get("init_lora_weights", "pissa")
    if not str(given).startswith("pissa"):
        raise ConfigError(
            f"adapter.init_lora_weights={given!r} is not PiSSA's start: give 'pissa', or 'pissa_niter_4' for a quick,"
            " approximate one"
        )
    return {"init_lora_weights": given}


def save_difference(model: Any, folder: Path, drawn: Mapping[str, torch.Tensor]) -> None:
    """Write the trained adapter as its difference from the tensors it was drawn with: plain LoRA of twice the rank."""
    with TemporaryDirectory() as scratch:
        first = Path(scratch) / "pissa_start"  # PEFT names a second adapter after the folder
        first.mkdir()
        save_file(dict(drawn), first / "adapter_model.safetensors", metadata={"format": "pt"})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "PiSSA changes the base weights")  # said of the conversion itself
            model.save_pretrained(str(folder), path_initial_model_for_weight_conversion=str(first))
    _add_left_out(model, folder / "adapter_model.safetensors")


def _add_left_out(model: Any, path: Path) -> None:
    """Add the tensors of modules that are trained whole, which PEFT's conversion drops."""
    written, trained = load_file(path), get_peft_model_state_dict(model)
    left_out = {name: tensor.contiguous() for name, tensor in trained.items() if name not in written}
    if left_out:
        save_file({**written, **left_out}, path, metadata={"format": "pt"})
