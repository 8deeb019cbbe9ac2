"""Whether an adapter joined of parts, loaded into its base, holds the numbers of their files.

Nothing is shared with the joining but the names of modules: the files are read again, and rows are counted here.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moslora.adapter.importing import chains_of, composed, pairs_of, read_config, read_tensors
from moslora.adapter.importing_parts import FOLDERS, PEFT_PREFIX, target_modules
from moslora.adapter.inspection import lora_layers
from moslora.adapter.part_layers import LLAVA_PARTS, PROJECTOR
from moslora.adapter.projectors import Projector
from moslora.adapter.tensors import Comparison, TensorDrift
from moslora.core.mixers import compose


def prove_joined(source: str | Path, adapted: Any, *, projector: Projector | None) -> TensorDrift:
    """Compare a loaded PEFT model with the files in `source`: A, M, B and scale of each layer, and the projector.

    Raises DriftError for a number that differs by more than the rounding of its dtype, and for a layer too many.
    """
    proof = Comparison("the joined adapter")
    layers, expected = lora_layers(adapted), set()
    for part, name in FOLDERS.items():
        folder = Path(source) / name
        if not folder.is_dir():
            continue
        tensors, fields = read_tensors(folder), read_config(folder)
        chains = chains_of(tensors)
        for key, (a, b) in pairs_of(tensors, source=str(folder)).items():
            mixer = composed(chains[key])[0] if key in chains else torch.eye(len(a), dtype=torch.float64)
            targets = target_modules(part, key.removeprefix(PEFT_PREFIX))
            for target, rows in zip(targets, _rows(adapted.config, len(targets), outputs=len(b)), strict=True):
                layer: Any = layers.get(target)
                if layer is None:
                    proof.refuse(f"it lacks {target}")
                added = layer.out_features - len(rows)  # for tokens that only the base has
                b_rows = torch.nn.functional.pad(b[rows], (0, 0, 0, added))
                factors = {"lora_A": a, "lora_mixer": mixer, "lora_B": b_rows, "scale": _scale(fields, rank=len(a))}
                _check_layer(proof, target, layer, factors=factors)
            expected |= {*targets}
    proof.same_names(expected, layers)
    if projector is not None:
        wrapped = (
            adapted.get_submodule(f"{PEFT_PREFIX}{LLAVA_PARTS[PROJECTOR]}").modules_to_save["default"].state_dict()
        )
        proof.same_names(projector.tensors, wrapped)
        for name, tensor in projector.tensors.items():
            _check(proof, f"projector.{name}", tensor, wrapped[name])
    return proof.result()


def _check_layer(proof: Comparison, name: str, layer: Any, *, factors: Mapping[str, torch.Tensor]) -> None:
    mixer = layer.lora_mixer["default"].weight if "default" in layer.lora_mixer else None
    found = {
        "lora_A": layer.lora_A["default"].weight,
        "lora_mixer": torch.eye(len(factors["lora_A"]), dtype=torch.float64)
        if mixer is None
        else compose(mixer.double()),
        "lora_B": layer.lora_B["default"].weight,
        "scale": torch.tensor(layer.scaling["default"], dtype=torch.float64),
    }
    for factor, tensor in factors.items():
        _check(proof, f"{name}.{factor}", tensor, found[factor])


def _check(proof: Comparison, name: str, expected: torch.Tensor, found: torch.Tensor) -> None:
    proof.check(name, expected, found, path=(expected.dtype, found.dtype))


def _scale(fields: Mapping[str, Any], *, rank: int) -> torch.Tensor:
    divisor = math.sqrt(rank) if fields.get("use_rslora") else rank
    return torch.tensor(fields.get("lora_alpha", 8) / divisor, dtype=torch.float64)


def _rows(config: Any, targets: int, *, outputs: int) -> list[list[int]]:
    """Which rows of a source's B belong to each target: all, or of a fused matrix those of q, k and v, head by head."""
    if targets == 1:
        return [list(range(outputs))]
    text = config.text_config
    size, groups = text.head_dim, text.num_key_value_heads
    shared = text.num_attention_heads // groups
    block = (shared + 2) * size  # one group's rows
    starts = [
        [block * (head // shared) + size * (head % shared) for head in range(text.num_attention_heads)],
        [block * group + size * shared for group in range(groups)],
        [block * group + size * (shared + 1) for group in range(groups)],
    ]
    return [[start + row for start in own for row in range(size)] for own in starts]
