"""Strict loading: an adapter is complete and fits, or there is an error before its first output.

PEFT asks the tuner to remap a checkpoint's keys once on every load (`check_loaded`). transformers' `load_adapter` asks
nobody, fills the parameters itself and logs what is missing, so layers made from a saved configuration refuse to run
until each of their tensors was filled (`watch_until_filled`).
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from moslora.core.folding import is_finite
from moslora.errors import CheckpointError

PREFIX = "base_model.model."
Shapes = Mapping[str, tuple[int, ...]]


def check_loaded(model: nn.Module, adapter_name: str, remapped: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError unless `remapped` fills every tensor of the adapter, with its shape, and nothing else."""
    modules = dict(model.named_modules())
    adapters = {name: module for name, module in modules.items() if "lora_" in name}
    expected = {key: shape for key, shape in _shapes(adapters).items() if _belongs_to(key, adapter_name)}
    is_all = all(_model_key(key, expected) in expected for key in remapped)
    known = expected if is_all else _shapes(modules)  # biases and saved modules lie elsewhere in the model
    given = {_model_key(key, known): tuple(tensor.shape) for key, tensor in remapped.items()}
    _check_shapes(adapter_name, given, expected, known=known)
    for module in modules.values():
        _stop_watching(module, adapter_name)


def _shapes(modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors that saving these modules would write, by their keys in the model."""
    return {
        f"{name}.{key}" if name else key: tuple(tensor.shape)
        for name, module in modules.items()
        for key, tensor in (*module._parameters.items(), *module._buffers.items())
        if tensor is not None and key not in module._non_persistent_buffers_set
    }


def load_adapter(model: Any, folder: str | Path, *, is_trainable: bool = False) -> PeftModel:
    """The model with the saved adapter of any PEFT method, as `PeftModel.from_pretrained` gives it.

    Raises CheckpointError unless every tensor of the file was used and none is missing, of which PEFT only warns.
    """
    check_adapter_folder(folder)
    with safe_open(Path(folder) / "adapter_model.safetensors", framework="pt") as tensors:
        given = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "The following rank_pattern keys")  # said of every AdaLoRA adapter
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
        except (RuntimeError, KeyError) as error:  # of load_state_dict
            raise CheckpointError(
                f"the adapter in {folder} does not fit the model ({' '.join(str(error).split())[:300]}): compare r,"
                " target_modules and the base model in adapter_config.json"
            ) from error
    expected = {key: tuple(tensor.shape) for key, tensor in get_peft_model_state_dict(adapted).items()}
    _check_shapes("default", given, expected, known=expected)
    return adapted


def _check_shapes(adapter_name: str, given: Shapes, expected: Shapes, *, known: Shapes) -> None:
    """Raise CheckpointError unless what is given fills all that is expected, and holds nothing that is not known."""
    missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - known.keys())
    misshaped = [
        f"{key} has shape {given[key]}, the model {expected[key]}"
        for key in sorted(given.keys() & expected.keys())
        if given[key] != expected[key]
    ]
    if missing or unexpected or misshaped:
        raise CheckpointError(_complaint(adapter_name, missing, unexpected, misshaped))


def watch_until_filled(layer: Any, adapter_name: str, *, name: str) -> None:
    """Make `layer` refuse its first forward pass while a tensor of the adapter still holds its drawn value.

    transformers replaces each parameter it fills; those it misses stay, and may be drawn anew by the model's own
    initialiser, whose trace is a mark on the module. A parameter written in place by other code counts as filled.
    """
    drawn = [
        (f"{module_name}.{key}", module, key, parameter, parameter._version)
        for container, held in layer._modules.items()
        if container != "base_layer"
        for module_name, module in held.named_modules(prefix=container)
        for key, parameter in module._parameters.items()
        if parameter is not None and not parameter.is_meta and _belongs_to(f"{module_name}.{key}", adapter_name)
    ]

    def refuse_unfilled(_layer: nn.Module, _inputs: Any) -> None:
        unfilled = [
            f"{name}.{path}"
            for path, module, key, parameter, version in drawn
            if module._parameters.get(key) is parameter
            and (parameter._version == version or getattr(module, "_is_hf_initialized", False))
        ]
        if unfilled:
            raise CheckpointError(_complaint(adapter_name, unfilled, [], []))
        _stop_watching(layer, adapter_name)

    handles = layer.__dict__.setdefault("_moslora_watches", {})
    handles[adapter_name] = layer.register_forward_pre_hook(refuse_unfilled)


def _stop_watching(module: nn.Module, adapter_name: str) -> None:
    handle = module.__dict__.get("_moslora_watches", {}).pop(adapter_name, None)
    if handle is not None:
        handle.remove()


def _belongs_to(key: str, adapter_name: str) -> bool:
    return "lora_" in key and (f".{adapter_name}." in key or key.endswith(f".{adapter_name}"))


def _model_key(key: str, state: Shapes) -> str:
    return key if key in state else key.removeprefix(PREFIX)


def _complaint(adapter_name: str, missing: list[str], unexpected: list[str], misshaped: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({_first(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} tensors are unexpected ({_first(unexpected)})")
    if misshaped:
        parts.append(f"{len(misshaped)} tensors do not fit ({_first(misshaped, joiner='; ')})")
    parts.append(_cause(missing, unexpected, misshaped))
    return f"the checkpoint of adapter '{adapter_name}' was refused: {'; '.join(parts)}"


def _cause(missing: list[str], unexpected: list[str], misshaped: list[str]) -> str:
    if missing and all("lora_mixer" in key for key in missing):
        return "it was probably saved by a program that dropped the mixer: save it again, or load it as plain LoRA"
    if missing:
        return "the file is probably incomplete or belongs to other target_modules: save or copy it again"
    if misshaped:
        return "its rank or base model is probably another one: compare r and base_model_config in adapter_config.json"
    if any("lora_mixer" in key or "lora_AB" in key for key in unexpected):
        return "it was probably written by the reference implementation: convert it with `moslora import`"
    return "it was probably saved with other target_modules or options than adapter_config.json says"


def _first(items: list[str], joiner: str = ", ") -> str:
    return joiner.join(items[:3]) + (", ..." if len(items) > 3 else "")


def check_adapter_folder(folder: str | Path) -> None:
    """Raise CheckpointError unless `folder` holds an adapter's configuration and undamaged safetensors."""
    folder = Path(folder)
    path = folder / "adapter_config.json"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no adapter_config.json: give the folder of a saved adapter") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): save or copy the adapter again") from None
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        advice = "save or copy the adapter again"
        if (folder / "adapter_model.bin").is_file():
            advice = (
                "it has a pickle, adapter_model.bin: save it again as safetensors,"
                " or convert another program's with `moslora import`"
            )
        raise CheckpointError(f"{folder} has no adapter_model.safetensors; {advice}")
    try:
        with safe_open(weights, framework="pt") as tensors:
            damaged = [key for key in tensors.keys() if not is_finite(tensors.get_tensor(key))]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is damaged ({error}): save or copy the adapter again") from None
    if damaged:
        raise CheckpointError(f"{weights} holds numbers that are not finite ({_first(damaged)}): train it again")
