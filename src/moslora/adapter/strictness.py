"""The one rule of strict loading: what is given equals what saving the adapter would write.

PEFT itself is asked what that is, with names in place of tensors: mixers, A and B, magnitudes, trained biases, saved
modules and tokens, whatever PEFT 0.21 writes, each with the model's own name for it. Keys are compared whole.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from moslora.adapter.twin import base_of
from moslora.errors import CheckpointError

PREFIX = "base_model.model."
HOLDERS = ("lora_", "modules_to_save", "trainable_tokens_")  # a part of a key, after which the adapter's name stands
Shapes = Mapping[str, tuple[int, ...]]


def matched(model: nn.Module, adapter_name: str, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`given` by the model's keys, if it is what saving the adapter would write, in keys and in shapes.

    Embeddings may be given too, as PEFT writes them again after a resize. Module names of transformers 4 are understood
    where transformers 5 renames them. Changes nothing; raises CheckpointError.
    """
    state = model.state_dict()
    required = _written(model, adapter_name, state, save_embedding_layers=False)
    known = {
        **{_unwrapped(key): key for key in required.values()},  # another adapter may wrap its layer, there or here
        **{key: key for key in required.values()},
        **{without_adapter(key, adapter_name): key for key in required.values()},  # so under FSDP
        **_written(model, adapter_name, state, save_embedding_layers=True),
        **required,
    }
    rename = _renaming(model)
    found: dict[str, torch.Tensor] = {}
    misfits: dict[str, str] = {}
    unexpected = []
    for key, tensor in given.items():
        bare = key.removeprefix(PREFIX)
        names = (key, bare, _unwrapped(key), _unwrapped(bare))
        target = next((known[name] for name in names if name in known), None) or known.get(rename(bare))
        if target is None:
            unexpected.append(key)
        elif tensor.shape != state[target].shape:
            misfits[target] = _misfit(key, tensor.shape, state[target].shape)
        elif target in found and not torch.equal(tensor, found[target]):
            misfits[target] = f"{key} differs from another tensor that is given for {target}"
        else:
            found[target] = tensor
    missing = [key for key, target in required.items() if target not in found.keys() | misfits.keys()]
    if missing or unexpected or misfits:
        own_names = {key.removeprefix(PREFIX) for key in state}
        is_foreign = any(key.removeprefix(PREFIX) in own_names for key in unexpected)
        raise CheckpointError(complaint(adapter_name, missing, unexpected, [*misfits.values()], is_foreign=is_foreign))
    return found


def check_shapes(adapter_name: str, given: Shapes, expected: Shapes) -> None:
    """Raise CheckpointError unless the tensors given, by their keys in a file, are those expected."""
    misfits = [
        _misfit(key, given[key], expected[key])
        for key in given.keys() & expected.keys()
        if tuple(given[key]) != tuple(expected[key])
    ]
    missing, unexpected = list(expected.keys() - given.keys()), list(given.keys() - expected.keys())
    if missing or unexpected or misfits:
        raise CheckpointError(complaint(adapter_name, missing, unexpected, misfits))


def without_adapter(key: str, adapter_name: str) -> str:
    """A key of the model without the adapter's name, wherever else that name stands in it."""
    parts = key.split(".")
    for place in range(len(parts) - 1, 0, -1):
        if parts[place] == adapter_name and parts[place - 1].startswith(HOLDERS):
            return ".".join(parts[:place] + parts[place + 1 :])
    return key


def confused(model: nn.Module, adapters: list[str]) -> dict[str, torch.Tensor]:
    """What PEFT takes for a tensor of one of these adapters because of a module that is called like it."""
    if not adapters:
        return {}
    state = model.state_dict()
    alike = {key for key in state if not {*adapters}.isdisjoint(key.split("."))}
    return {key: state[key] for key in alike - others_keys(alike, adapters)}


def others_keys(keys: Iterable[str], adapters: list[str]) -> set[str]:
    """Those of the model's keys that stand for a tensor of one of these adapters."""
    return {key for key in keys if any(without_adapter(key, name) != key for name in adapters)}


def others_biases(model: nn.Module, adapter_name: str) -> set[str]:
    """The model's keys for biases of layers that have an adapter, but not this one."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {f"{name}.base_layer.bias" for name, layer in layers.items() if adapter_name not in layer.r}


def _written(
    model: nn.Module, adapter_name: str, state: Mapping[str, Any], *, save_embedding_layers: bool
) -> dict[str, str]:
    """Each key that saving the adapter would write, with the model's key for it."""
    names: Any = {key: key for key in state}
    has_embeddings = hasattr(model, "get_input_embeddings")
    try:
        written: Any = get_peft_model_state_dict(
            model, names, adapter_name=adapter_name, save_embedding_layers=save_embedding_layers and has_embeddings
        )
        return written
    except NotImplementedError:  # a transformers model without embeddings
        return {}


def _renaming(model: nn.Module) -> Callable[[str], str]:
    """How transformers 5 names what was saved under transformers 4's names; other models keep their names."""
    base = base_of(model)
    if not isinstance(base, PreTrainedModel):
        return lambda key: key
    rules = [rule for rule in get_model_conversion_mapping(base) if isinstance(rule, WeightRenaming)]
    prefix = "" if base is model else PREFIX
    return lambda key: prefix + rename_source_key(key, rules, [])[0]


def _unwrapped(key: str) -> str:
    """A key without the names that PEFT puts between a wrapped layer and its tensors."""
    return re.sub(r"\.(base_layer|original_module)(?=\.)", "", key)


def _misfit(key: str, given: tuple[int, ...], expected: tuple[int, ...]) -> str:
    return f"{key} has shape {tuple(given)}, the model {tuple(expected)}"


def complaint(
    adapter_name: str, missing: list[str], unexpected: list[str], misfits: list[str], *, is_foreign: bool = False
) -> str:
    """What is wrong with a checkpoint, in one line, and the likely cause."""
    parts = []
    if missing:
        parts.append(f"{len(missing)} tensors are missing ({first(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} tensors are unexpected ({first(unexpected)})")
    if misfits:
        parts.append(f"{len(misfits)} tensors do not fit ({first(misfits, joiner='; ')})")
    cause = _cause(missing, unexpected, misfits, is_foreign=is_foreign)
    return f"the checkpoint of adapter '{adapter_name}' was refused: {'; '.join(parts)}; {cause}"


def _cause(missing: list[str], unexpected: list[str], misfits: list[str], *, is_foreign: bool) -> str:
    if missing and all("lora_mixer" in key for key in missing):
        return "it was probably saved by a program that dropped the mixer: save it again, or load it as plain LoRA"
    if missing:
        return "the file is probably incomplete or belongs to other target_modules: save or copy it again"
    if misfits:
        return "its rank or base model is probably different: compare r and base_model_config in adapter_config.json"
    if any("lora_mixer" in key or "lora_AB" in key for key in unexpected):
        return "it was probably written by the reference implementation: convert it with `moslora import`"
    if is_foreign:
        return "they belong to the base model or to another adapter: save the adapter alone, with save_pretrained"
    return "it was probably saved with other target_modules or options than adapter_config.json says"


def first(items: list[str], joiner: str = ", ") -> str:
    """The first few items, sorted, for a message."""
    return joiner.join(sorted(items)[:3]) + (", ..." if len(items) > 3 else "")
