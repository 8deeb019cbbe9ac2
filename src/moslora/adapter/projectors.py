"""The projector of a LLaVA-style model, two linear layers with an activation between, from the files others write.

XTuner names its layers `model.0` and `model.2` (in `.pth` files with `projector.` before), LLaVA
`model.mm_projector.0` and `.2`, transformers `multi_modal_projector.linear_1` and `.linear_2`.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from moslora.adapter.importing import read_tensor_file
from moslora.errors import CheckpointError

FILES = ("model.safetensors", "pytorch_model.bin", "projector.safetensors", "mm_projector.bin")
PREFIX = r"(?:(?:projector\.)?model\.|(?:model\.)?mm_projector\.|(?:model\.)?multi_modal_projector\.)?"
KEY = re.compile(rf"^{PREFIX}(?P<layer>linear_1|linear_2|\d+)\.(?P<part>weight|bias)$")
LAYERS = {"0": "linear_1", "2": "linear_2"}  # number in a sequence with an activation at 1: name in transformers


@dataclass(frozen=True)
class Projector:
    """A projector's tensors under transformers' names (`linear_1.weight` (O, I), ...), and its activation if known."""

    tensors: dict[str, torch.Tensor]
    activation: str | None

    @property
    def has_bias(self) -> bool:
        """Whether both layers add a bias."""
        return "linear_1.bias" in self.tensors

    def check_sizes(self, *, vision: int, language: int, source: str) -> None:
        """Refuse a projector of other widths than the model's two parts. Raises CheckpointError."""
        wanted = {"linear_1.weight": (language, vision), "linear_2.weight": (language, language)}
        for name, shape in wanted.items():
            if tuple(self.tensors[name].shape) != shape:
                raise CheckpointError(
                    f"{source}: {name} has shape {tuple(self.tensors[name].shape)} and a vision tower of width"
                    f" {vision} with a language model of width {language} needs {shape}: give the projector trained"
                    " for these two"
                )


def read_projector(path: str | Path) -> Projector:
    """Read a projector from a file, or from a folder with one of `FILES` and perhaps a `config.json`.

    Raises CheckpointError for what cannot be read, is not two linear layers, or holds other tensors too.
    """
    path = Path(path)
    file = next((path / name for name in FILES if (path / name).is_file()), path / FILES[0]) if path.is_dir() else path
    tensors, others = {}, []
    for key, tensor in read_tensor_file(file).items():
        match = KEY.match(key)
        name = match and f"{LAYERS.get(match['layer'], match['layer'])}.{match['part']}"
        if name is None or name in tensors:
            others.append(key)
        else:
            tensors[name] = tensor.contiguous()
    wanted = {"linear_1.weight", "linear_2.weight"}
    if any(name.endswith("bias") for name in tensors):
        wanted |= {"linear_1.bias", "linear_2.bias"}
    others += sorted(tensors.keys() - wanted)
    if others or tensors.keys() != wanted:
        lacking = sorted(wanted - tensors.keys())
        reason = f"lacks {', '.join(lacking)}" if lacking else f"also holds {', '.join(sorted(others)[:3])}"
        raise CheckpointError(
            f"{file} is not a projector of two linear layers: it {reason} (give XTuner's projector folder or .pth file,"
            " LLaVA's mm_projector.bin, or transformers' tensors)"
        )
    return Projector(tensors, _activation(file.parent / "config.json") if path.is_dir() else None)


def _activation(config: Path) -> str | None:
    """The activation that XTuner's projector folder names."""
    if not config.is_file():
        return None
    try:
        fields = json.loads(config.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config} is not readable JSON ({error}): get a fresh copy of the file") from None
    return fields.get("hidden_act")
