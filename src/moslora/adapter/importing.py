"""Adapters of other programs, converted to ours: the papers' reference code, and plain LoRA as a start.

- MoSLoRA's reference code saves the mixer as `lora_AB.weight` (R, R) between `lora_A` and `lora_B`.
- LinChain's saves a chain `lora_mixer.N.weight` with biases; these compose to one constant c, so to the output bias
  `B·c`, which PEFT's `lora_bias` holds exactly.
- A plain LoRA adapter gets an identity mixer, which training then moves.
"""

import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moslora.adapter.config import MosloraConfig
from moslora.errors import CheckpointError
from moslora.files import new_folder

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
LINK = re.compile(r"^(?P<layer>.+)\.lora_(?:mixer\.(?P<number>\d+)|AB)\.(?P<part>weight|bias)$")


def import_adapter(source: str | Path, folder: str | Path) -> MosloraConfig:
    """Convert the adapter in `source` and write it to `folder` (new or empty); returns its configuration.

    Reads safetensors, or a `.bin` file as tensors only. Raises CheckpointError for a damaged file or one whose tensors
    do not belong together, OutputError for a folder that is not empty.
    """
    source = Path(source)
    tensors = read_tensors(source)
    config, converted = convert(tensors, read_config(source), source=str(source))
    config.inference_mode = True
    with new_folder(folder) as staged:
        save_file(converted, staged / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(staged))
    return config


def read_tensors(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder; CheckpointError when there are none that can be read."""
    path = next((source / name for name in WEIGHT_FILES if (source / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{source} has no adapter weights (looked for {' and '.join(WEIGHT_FILES)})")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path} is damaged or holds more than tensors ({reason}): get the file again") from None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} is not a dictionary of tensors: export it with the program that wrote it")
    return tensors


def read_config(source: Path) -> dict[str, Any]:
    """The fields of `adapter_config.json`; CheckpointError when it is missing, broken or of another method."""
    path = source / "adapter_config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{source} has no adapter_config.json: give the folder of a saved adapter") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): get the file again") from None
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{path} says peft_type {kind}: only LoRA-like adapters (LORA) can be imported")
    return fields


def convert(
    tensors: Mapping[str, torch.Tensor], fields: Mapping[str, Any], *, source: str
) -> tuple[MosloraConfig, dict[str, torch.Tensor]]:
    """The configuration and tensors of an adapter in our format; fields that PEFT does not know are left out."""
    chains = _chains(tensors)
    layers = sorted({key.rpartition(".lora_A.")[0] for key in tensors if key.endswith(".lora_A.weight")})
    if not layers:
        raise CheckpointError(f"{source} has no tensor called *.lora_A.weight: it is not a LoRA-like adapter")
    depths = {len(chains[layer]) for layer in layers if layer in chains} or {0}
    if len(depths) > 1 or (chains and set(chains) != set(layers)):
        raise CheckpointError(f"{source} has mixers for some layers only: {len(chains)} of {len(layers)}; get it again")
    converted = {key: tensor.contiguous() for key, tensor in tensors.items() if LINK.match(key) is None}
    has_bias = any(bias is not None for chain in chains.values() for _, bias in chain)
    for layer in layers:
        a, b = tensors[f"{layer}.lora_A.weight"], tensors.get(f"{layer}.lora_B.weight")
        chain = chains.get(layer) or [(torch.eye(len(a), dtype=a.dtype), None)]
        _check_shapes(layer, a, b, chain, source=source)
        converted[f"{layer}.lora_mixer.weight"] = torch.stack([weight.to(a.dtype) for weight, _ in chain])
        if has_bias:
            converted[f"{layer}.lora_B.bias"] = _output_bias(b, chain)
    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init} - {"peft_type", "lora_bias"}
    config = MosloraConfig(
        **{name: value for name, value in fields.items() if name in known},
        lora_bias=has_bias or bool(fields.get("lora_bias")),
        mixer="kaiming" if chains else "identity",
        mixer_depth=max(depths) or 1,
    )
    return config, converted


Chain = list[tuple[torch.Tensor, torch.Tensor | None]]


def _chains(tensors: Mapping[str, torch.Tensor]) -> dict[str, Chain]:
    found: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for key, tensor in tensors.items():
        match = LINK.match(key)
        if match is not None:
            links = found.setdefault(match["layer"], {})
            links.setdefault(int(match["number"] or 0), {})[match["part"]] = tensor
    return {
        layer: [(links[number]["weight"], links[number].get("bias")) for number in sorted(links)]
        for layer, links in found.items()
    }


def _check_shapes(layer: str, a: torch.Tensor, b: torch.Tensor | None, chain: Chain, *, source: str) -> None:
    rank = len(a)
    if b is None or b.shape[1] != rank:
        shape = "no lora_B.weight" if b is None else f"lora_B.weight of shape {tuple(b.shape)}"
        raise CheckpointError(f"{source}: {layer} has rank {rank} in lora_A and {shape}; get the file again")
    for weight, _ in chain:
        if tuple(weight.shape) != (rank, rank):
            raise CheckpointError(f"{source}: {layer} has rank {rank} and a mixer of shape {tuple(weight.shape)}")


def _output_bias(b: torch.Tensor | None, chain: Chain) -> torch.Tensor:
    assert b is not None
    constant = torch.zeros(b.shape[1], dtype=torch.float64)
    for weight, bias in chain:
        constant = weight.double() @ constant + (0 if bias is None else bias.double())
    return (b.double().flatten(1) @ constant).to(b.dtype)
