"""Adapters of other programs, converted to ours: the papers' reference code, and plain LoRA as a start.

- MoSLoRA's reference code saves the mixer as `lora_AB.weight` (R, R) between `lora_A` and `lora_B`.
- LinChain's saves a chain `lora_mixer.N.weight` with biases; these compose to one constant c, so to the output bias
  `B·c`, which PEFT's `lora_bias` holds exactly.
- A plain LoRA adapter gets an identity mixer, which training then moves.

What is written is read again and compared with what was given, number by number.
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

from moslora.adapter.config import PLAIN_INITS, MosloraConfig
from moslora.adapter.tensors import Comparison
from moslora.core.mixers import compose
from moslora.errors import CheckpointError
from moslora.files import new_folder

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
B_OF = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
PAST_INITS = ("eva", "orthogonal", "mica")  # inits of A and B alone: once trained, only history
INIT_SETTINGS = ("init_lora_weights", "eva_config", "loftq_config", "corda_config", "lora_ga_config")
LINK = re.compile(r"^(?P<layer>.+)\.lora_(?:mixer\.(?P<number>\d+)|AB)\.(?P<part>weight|bias)$")


def import_adapter(source: str | Path, folder: str | Path) -> MosloraConfig:
    """Convert the adapter in `source` and write it to `folder` (new or empty); returns its configuration.

    Reads safetensors, or a `.bin` file as tensors only. Raises CheckpointError for a damaged file or one whose tensors
    do not belong together, or whose training changed the base model too, OutputError for a folder that is not empty.
    """
    source = Path(source)
    tensors = read_tensors(source)
    config, converted = convert(tensors, read_config(source), source=str(source))
    config.inference_mode = True
    with new_folder(folder) as staged:
        weights = staged / "adapter_model.safetensors"
        save_file(converted, weights, metadata={"format": "pt"})
        config.save_pretrained(str(staged))
        _prove(tensors, load_file(weights))
    return config


def read_tensors(source: Path) -> dict[str, torch.Tensor]:
    """The tensors of an adapter folder; CheckpointError when there are none that can be read."""
    path = next((source / name for name in WEIGHT_FILES if (source / name).is_file()), None)
    if path is None:
        raise CheckpointError(f"{source} has no adapter weights (looked for {' and '.join(WEIGHT_FILES)})")
    return read_tensor_file(path)


def read_tensor_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, or of a pickle of torch's read as tensors only, on the CPU.

    A dictionary under `state_dict`, as training programs write it, is read too. Raises CheckpointError for a file that
    is missing or damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: give a .safetensors, .pth, .pt or .bin file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors ({reason}): get a fresh copy of the file"
        ) from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
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
        raise CheckpointError(f"{path} is not readable JSON ({error}): get a fresh copy of the file") from None
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(f"{path} says peft_type {kind}: only LoRA-like adapters (LORA) can be imported")
    return fields


def convert(
    tensors: Mapping[str, torch.Tensor], fields: Mapping[str, Any], *, source: str
) -> tuple[MosloraConfig, dict[str, torch.Tensor]]:
    """The configuration and tensors of an adapter in our format; fields that PEFT does not know are left out."""
    init = _plain_init(fields.get("init_lora_weights", True), source=source)
    chains, pairs = chains_of(tensors), pairs_of(tensors, source=source)
    depths = {len(chains[layer]) for layer in pairs if layer in chains} or {0}
    if len(depths) > 1 or (chains and set(chains) != set(pairs)):
        raise CheckpointError(
            f"{source} has mixers for some layers only: {len(chains)} of {len(pairs)}; get a fresh copy"
        )
    converted = {key: tensor.contiguous() for key, tensor in tensors.items() if LINK.match(key) is None}
    has_bias = any(bias is not None for chain in chains.values() for _, bias in chain)
    for layer, (a, b) in pairs.items():
        chain = chains.get(layer) or [(torch.eye(len(a), dtype=a.dtype), None)]
        _check_shapes(layer, a, b, chain, source=source)
        converted[f"{layer}.lora_mixer.weight"] = torch.stack([weight for weight, _ in chain])
        if has_bias:
            if f"{layer}.lora_B.weight" not in tensors or b.shape[1] != len(a):
                raise CheckpointError(f"{source}: the mixers have biases, for which {layer} has no place")
            key = f"{layer}.lora_B.bias"
            converted[key] = _output_bias(b, chain, tensors.get(key)).to(b.dtype)
    known = {field.name for field in dataclasses.fields(LoraConfig) if field.init} - {"peft_type", *INIT_SETTINGS}
    options = {name: value for name, value in fields.items() if name in known}
    config = MosloraConfig(
        **options | {"lora_bias": has_bias or bool(fields.get("lora_bias")), "init_lora_weights": init},
        mixer="kaiming" if chains else "identity",
        mixer_depth=max(depths) or 1,
    )
    return config, converted


def _plain_init(init: Any, *, source: str) -> bool | str:
    """The init to note for weights that were trained: True where theirs is history; CheckpointError where it is not."""
    name = str(init).lower()
    if init in PLAIN_INITS or name in PAST_INITS:
        return init if init in PLAIN_INITS else True
    if name == "loftq":
        advice = "it belongs to the base model that LoftQ made"
    else:
        advice = (
            "convert it to plain LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion, before"
            " the start is gone) and import that"
        )
    raise CheckpointError(
        f"{source} was started with init_lora_weights={init!r}, which changes the base model too, so its tensors alone"
        f" are not what was trained: {advice}; or, with the changed base saved, name that base in adapter_config.json,"
        " set init_lora_weights to true there, and import again"
    )


def pairs_of(tensors: Mapping[str, torch.Tensor], *, source: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A and B of every layer by its name, embeddings too."""
    pairs = {}
    for key, a in sorted(tensors.items()):
        for a_key, b_key in B_OF.items():
            if key.endswith(a_key):
                layer = key.removesuffix(a_key)
                if layer + b_key not in tensors:
                    raise CheckpointError(
                        f"{source}: {layer} has rank {len(a)} in {a_key[1:]} and no {b_key[1:]}; get a fresh copy of"
                        " the file"
                    )
                pairs[layer] = a, tensors[layer + b_key]
    if not pairs:
        raise CheckpointError(
            f"{source} has no tensor called *.lora_A.weight or *.lora_embedding_A: it is not a LoRA-like adapter"
        )
    return pairs


Chain = list[tuple[torch.Tensor, torch.Tensor | None]]


def chains_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Chain]:
    """The mixers of every layer that has them: weights (R, R) and biases (R,) or None, first applied first."""
    found: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    for key, tensor in tensors.items():
        match = LINK.match(key)
        if match is not None:
            links = found.setdefault(match["layer"], {})
            links.setdefault(int(match["number"] or 0), {})[match["part"]] = tensor
    for layer, links in found.items():
        if any("weight" not in link for link in links.values()):
            raise CheckpointError(f"{layer} has a mixer's bias without its weight: get a fresh copy of the file")
    return {
        layer: [(links[number]["weight"], links[number].get("bias")) for number in sorted(links)]
        for layer, links in found.items()
    }


def _check_shapes(layer: str, a: torch.Tensor, b: torch.Tensor, chain: Chain, *, source: str) -> None:
    rank, b_rank = len(a), b.shape[1]
    is_grouped = b.dim() > 2 and rank % b_rank == 0  # of a convolution with groups, B has a share of the rank for each
    if b_rank != rank and not is_grouped:
        raise CheckpointError(
            f"{source}: {layer} has rank {rank} in A and B of shape {tuple(b.shape)}; get a fresh copy of the file"
        )
    for weight, _ in chain:
        if tuple(weight.shape) != (rank, rank):
            raise CheckpointError(f"{source}: {layer} has rank {rank} and a mixer of shape {tuple(weight.shape)}")


def composed(chain: Chain) -> tuple[torch.Tensor, torch.Tensor]:
    """The chain as one matrix and one constant, in float64: `M2(M1 h + b1) + b2 = M2·M1 h + (M2 b1 + b2)`."""
    matrix = torch.eye(len(chain[0][0]), dtype=torch.float64)
    constant = torch.zeros(len(matrix), dtype=torch.float64)
    for weight, bias in chain:
        matrix = weight.double() @ matrix
        constant = weight.double() @ constant + (0 if bias is None else bias.double())
    return matrix, constant


def _output_bias(b: torch.Tensor, chain: Chain, own: torch.Tensor | None) -> torch.Tensor:
    """What the biases of a chain add to the output before scaling, and the layer's own bias, in float64."""
    added = b.double().flatten(1) @ composed(chain)[1]
    return added if own is None else added + own.double()


def _prove(given: Mapping[str, torch.Tensor], written: Mapping[str, torch.Tensor]) -> None:
    """Compare what was written with what was given; DriftError unless each tensor is there and right."""
    proof, chains = Comparison("the imported adapter"), chains_of(given)
    right = {key: tensor for key, tensor in given.items() if LINK.match(key) is None}
    found = dict(written)
    for layer, (a, b) in pairs_of(given, source="the source").items():
        chain, key, bias_key = chains.get(layer), f"{layer}.lora_mixer.weight", f"{layer}.lora_B.bias"
        right[key] = torch.eye(len(a), dtype=torch.float64) if chain is None else composed(chain)[0]
        if key in found:
            found[key] = compose(found[key].double())
        if chain is not None and any(bias is not None for _, bias in chain):
            right[bias_key] = _output_bias(b, chain, given.get(bias_key))
    proof.same_names(right, found)
    for key, tensor in right.items():
        proof.check(key, tensor, found[key], path=(tensor.dtype, found[key].dtype))
