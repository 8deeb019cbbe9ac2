"""Shipping an adapter: as plain LoRA that needs none of our code, or merged into a full model.

Both are verified before they stand in their place: what was written is loaded back, its tensors are compared with the
adapter's number by number, and a probe batch runs through both. A difference above the dtype's rounding is an error.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.lora.layer import LoraLayer
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from moslora.adapter.card import folded_card
from moslora.adapter.config import MosloraConfig
from moslora.adapter.experts import check_plain_targets
from moslora.adapter.head import head_of
from moslora.adapter.merging import merged_model
from moslora.adapter.proving import A_KEYS, MIXER_KEY, prove_fold, prove_merge, saved_tensors
from moslora.adapter.strictness import PREFIX
from moslora.adapter.tensors import TensorDrift
from moslora.adapter.twin import base_of, own_empty, plain_twin, uncompiled
from moslora.adapter.verification import Drift, coarsest_dtype, default_probe, measure_drift, probe_output
from moslora.core.folding import fold_into_a
from moslora.core.mixers import compose
from moslora.core.precision import own_dtype, wide_dtype
from moslora.errors import ConfigError, DriftError
from moslora.files import new_folder


def fold(model: nn.Module, adapter_name: str = "default") -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """An adapter as plain LoRA: its `LoraConfig`, and its tensors with A' = M·A, rounded once to A's dtype.

    `model` is a PeftModel, or a transformers or diffusers model with the adapter added, compiled or not. Rank and scale
    stay; DoRA magnitudes, biases and saved modules are passed through. Raises ConfigError where there is no such
    adapter, UnsupportedLayerError where PEFT would read its target names otherwise.
    """
    model = uncompiled(model)
    config = _mixer_config(model, adapter_name)
    tensors = saved_tensors(model, adapter_name)
    folded = {key: _folded(key, tensor, tensors) for key, tensor in tensors.items() if not key.endswith(MIXER_KEY)}
    plain = plain_config(config)
    check_plain_targets(plain, base_of(model))
    return plain, _apart(folded)


def plain_lora(model: nn.Module, adapter_name: str = "default") -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """As `fold`; an adapter that is plain LoRA already as it is. Raises ConfigError for one of another type too."""
    config: Any = check_in_use(model, adapter_name)
    if isinstance(config, MosloraConfig):
        return fold(model, adapter_name)
    if type(config) is not LoraConfig:
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise ConfigError(
            f"adapter '{adapter_name}' is of type {kind}, which has no form as a pipeline's LoRA file: train MOSLORA or"
            " LORA, or keep the adapter's folder"
        )
    return config, {key: tensor.detach().contiguous() for key, tensor in saved_tensors(model, adapter_name).items()}


def plain_config(config: MosloraConfig) -> LoraConfig:
    """The LoRA part of a configuration."""
    fields = [field.name for field in dataclasses.fields(LoraConfig) if field.init and field.name != "peft_type"]
    return LoraConfig(**{name: copy.copy(getattr(config, name)) for name in fields})


def save_folded(
    model: nn.Module,
    folder: str | Path,
    *,
    adapter_name: str = "default",
    probe: Mapping[str, torch.Tensor] | None = None,
    allow_drift: bool = False,
) -> Drift:
    """Write the folded adapter to `folder` (new or empty), after loading it back with plain PEFT to verify it.

    `probe` holds keyword arguments of the model's forward pass; by default a fixed batch of token ids. Raises
    DriftError when a tensor that PEFT loads is not the adapter's to the rounding of its dtype, or the outputs differ by
    more than the dtype allows (with `allow_drift` that difference is only returned), and OutputError when the folder is
    not empty.
    """
    model = uncompiled(model)
    config, tensors = fold(model, adapter_name)
    config.inference_mode = True
    probe = probe if probe is not None else default_probe(model)
    expected = probe_output(model, probe)
    with new_folder(folder) as staged:
        weights = staged / "adapter_model.safetensors"
        save_file(tensors, weights, metadata={"format": "pt"})
        config.save_pretrained(str(staged))
        (staged / "README.md").write_text(folded_card(config, model), encoding="utf-8")
        twin = _load_folded(model, staged, adapter_name=adapter_name)
        with safe_open(weights, framework="pt") as written:
            tensor_drift = prove_fold(model, twin, adapter_name=adapter_name, written=written.keys())
        found = probe_output(twin, probe)
        dtypes, are_tokens = [coarsest_dtype(model)], head_of(model) is not None
        drift = measure_drift(expected, found, dtypes=dtypes, tensors=tensor_drift, are_tokens=are_tokens)
        if not allow_drift:
            drift.require("the folded adapter")
    return drift


def save_merged(
    model: nn.Module,
    folder: str | Path,
    *,
    adapter_name: str = "default",
    dtype: torch.dtype | None = None,
    probe: Mapping[str, torch.Tensor] | None = None,
    allow_drift: bool = False,
    tokenizer: Any = None,
) -> Drift:
    """Write the merged full model to `folder` (new or empty), after loading it back to verify it.

    Sums are taken in float32 or wider and stored in `dtype`, by default the base model's own; a quantised base needs
    `dtype` (ConfigError). Otherwise as `save_folded`.
    """
    model = uncompiled(model)
    _mixer_config(model, adapter_name)
    if not hasattr(base_of(model), "save_pretrained"):
        raise ConfigError(
            f"{type(base_of(model)).__name__} has no save_pretrained, so it cannot be written: merge it in memory with"
            " merge_and_unload()"
        )
    probe = probe if probe is not None else default_probe(model)
    expected = probe_output(model, probe)
    merged = merged_model(model, adapter_name=adapter_name, dtype=dtype)
    return write_merged(
        merged,
        folder,
        expected=expected,
        probe=probe,
        adapted_dtype=coarsest_dtype(model),
        prove=partial(prove_merge, model, adapter_name=adapter_name, dtype=dtype),
        allow_drift=allow_drift,
        tokenizer=tokenizer,
    )


def write_merged(
    merged: Any,
    folder: str | Path,
    *,
    expected: torch.Tensor,
    probe: Mapping[str, torch.Tensor],
    adapted_dtype: torch.dtype,
    prove: Callable[[nn.Module], TensorDrift],
    allow_drift: bool = False,
    tokenizer: Any = None,
) -> Drift:
    """Write a merged model to `folder` after loading it back; `expected` is what the adapter gave for the probe.

    `adapted_dtype` is the coarsest dtype of the model with the adapter; `prove` compares the tensors of the model that
    was loaded back. Raises as `save_folded`.
    """
    dtypes = [adapted_dtype, coarsest_dtype(merged)]
    device = next(merged.parameters()).device
    with new_folder(folder) as staged:
        merged.save_pretrained(staged)
        if tokenizer is not None:
            tokenizer.save_pretrained(staged)
        kind = type(merged)
        del merged
        loaded = kind.from_pretrained(staged, dtype="auto").to(device)
        tensor_drift = prove(loaded)
        found = probe_output(loaded, probe)
        are_tokens = head_of(loaded) is not None
        drift = measure_drift(expected, found, dtypes=dtypes, tensors=tensor_drift, are_tokens=are_tokens)
        if not allow_drift:
            drift.require("the merged model")
    return drift


def check_in_use(model: Any, adapter_name: str) -> Any:
    """The configuration of an adapter that can be exported: it is there, active, enabled and not merged.

    Raises ConfigError.
    """
    configs = getattr(model, "peft_config", {})
    if adapter_name not in configs:
        raise ConfigError(f"the model has no adapter '{adapter_name}' (it has: {', '.join(configs) or 'none'})")
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        tuner: Any = layer
        if tuner.merged:
            raise ConfigError("adapters are merged into the base weights: call unmerge_adapter() first")
        if tuner.disable_adapters:
            raise ConfigError("the adapters are disabled, so there is nothing to compare with: enable them first")
        if adapter_name in tuner.r and list(tuner.active_adapters) != [adapter_name]:
            active = ", ".join(tuner.active_adapters) or "none"
            raise ConfigError(f"adapter '{adapter_name}' is not the active one ({active}): call set_adapter() first")
    return configs[adapter_name]


def _mixer_config(model: Any, adapter_name: str) -> MosloraConfig:
    config = check_in_use(model, adapter_name)
    if not isinstance(config, MosloraConfig):
        raise ConfigError(f"adapter '{adapter_name}' is a {type(config).__name__}, which has no mixer to fold")
    return config


def _folded(key: str, tensor: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    for a_key in A_KEYS:
        mixer = tensors.get(key.removesuffix(a_key) + MIXER_KEY) if key.endswith(a_key) else None
        if mixer is not None:
            with own_dtype(mixer.device):
                return fold_into_a(tensor, compose(mixer.to(wide_dtype(mixer))))
    return tensor


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors that share no memory, as a file of tied weights needs them."""
    apart: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        start = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.detach().clone() if start in seen else tensor.detach().contiguous()
        seen.add(start)
    return apart


def _load_folded(model: nn.Module, folder: Path, *, adapter_name: str) -> PeftModel:
    """The folded adapter as plain PEFT loads it onto the base model, of which nothing is written to."""
    saved = saved_tensors(model, adapter_name)
    twin = plain_twin(model)
    parts = (key.removeprefix(PREFIX).split(".") for key in saved)
    own_empty(twin, [".".join(part for part in key if part != "base_layer") for key in parts])
    is_wide = any(tensor.dtype == torch.float32 for tensor in saved.values())
    try:
        return PeftModel.from_pretrained(twin, str(folder), autocast_adapter_dtype=is_wide)
    except (KeyError, RuntimeError) as error:  # a tensor that is missing or has another shape
        reason = " ".join(str(error).split())[:300]
        raise DriftError(
            f"the folded adapter does not load in plain PEFT ({reason}), so nothing was written"
        ) from error
