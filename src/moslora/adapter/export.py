"""Shipping an adapter: as plain LoRA that needs none of our code, or merged into a full model.

Both are verified before they stand in their place: a probe batch runs through the adapter and through what was
written and loaded back, and a difference above the tolerance of the dtype is an error.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from moslora.adapter.config import MosloraConfig
from moslora.adapter.layers import mixer_layers
from moslora.adapter.merging import merged_model
from moslora.adapter.strictness import PREFIX
from moslora.adapter.twin import plain_twin
from moslora.adapter.verification import Drift, coarsest_dtype, default_probe, measure_drift, probe_output
from moslora.core.folding import fold_into_a
from moslora.core.mixers import compose
from moslora.errors import ConfigError, DriftError
from moslora.files import new_folder

MIXER_KEY = ".lora_mixer.weight"
A_KEYS = (".lora_A.weight", ".lora_embedding_A")


def fold(model: nn.Module, adapter_name: str = "default") -> tuple[LoraConfig, dict[str, torch.Tensor]]:
    """An adapter as plain LoRA: its `LoraConfig`, and its tensors with A' = M·A, rounded once to A's dtype.

    `model` is a PeftModel, or a transformers or diffusers model with the adapter added. Rank and scale stay; DoRA
    magnitudes, biases and saved modules are passed through. Raises ConfigError when there is no such adapter.
    """
    config = _mixer_config(model, adapter_name)
    tensors = get_peft_model_state_dict(model, adapter_name=adapter_name)
    prefix = "" if isinstance(model, PeftModel) else PREFIX
    return plain_config(config), {
        prefix + key: _folded(key, tensor, tensors).detach().contiguous().clone()  # PEFT gives some tensors twice
        for key, tensor in tensors.items()
        if not key.endswith(MIXER_KEY)
    }


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
    DriftError when the outputs differ by more than the dtype allows (with `allow_drift` the difference is only
    returned) or PEFT does not load every tensor as it was written, and OutputError when the folder is not empty.
    """
    config, tensors = fold(model, adapter_name)
    config.inference_mode = True
    probe = probe if probe is not None else default_probe(model)
    expected = probe_output(model, probe)
    with new_folder(folder) as staged:
        save_file(tensors, staged / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(staged))
        (staged / "README.md").write_text(_card(config), encoding="utf-8")
        has_wide_factors = any(tensor.dtype == torch.float32 for tensor in tensors.values())
        twin = PeftModel.from_pretrained(plain_twin(model), str(staged), autocast_adapter_dtype=has_wide_factors)
        drift = measure_drift(expected, probe_output(twin, probe), [coarsest_dtype(model)])
        if not allow_drift:
            drift.require("the folded adapter")
        _check_all_is_loaded(tensors, twin)
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
    _mixer_config(model, adapter_name)
    probe = probe if probe is not None else default_probe(model)
    expected = probe_output(model, probe)
    merged = merged_model(model, adapter_name=adapter_name, dtype=dtype)
    return write_merged(
        merged,
        folder,
        expected=expected,
        probe=probe,
        adapted_dtype=coarsest_dtype(model),
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
    allow_drift: bool = False,
    tokenizer: Any = None,
) -> Drift:
    """Write a merged model to `folder` after loading it back; `expected` is what the adapter gave for the probe.

    `adapted_dtype` is the coarsest dtype of the model with the adapter. Raises as `save_folded`.
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
        drift = measure_drift(expected, probe_output(loaded, probe), dtypes)
        if not allow_drift:
            drift.require("the merged model")
    return drift


def _mixer_config(model: Any, adapter_name: str) -> MosloraConfig:
    configs = getattr(model, "peft_config", {})
    if adapter_name not in configs:
        raise ConfigError(f"the model has no adapter '{adapter_name}' (it has: {', '.join(configs) or 'none'})")
    config = configs[adapter_name]
    if not isinstance(config, MosloraConfig):
        raise ConfigError(f"adapter '{adapter_name}' is a {type(config).__name__}, which has no mixer to fold")
    for layer in mixer_layers(model).values():
        if layer.merged:
            raise ConfigError("adapters are merged into the base weights: call unmerge_adapter() first")
        if layer.disable_adapters:
            raise ConfigError("the adapters are disabled, so there is nothing to compare with: enable them first")
        if adapter_name in layer.r and list(layer.active_adapters) != [adapter_name]:
            active = ", ".join(layer.active_adapters) or "none"
            raise ConfigError(f"adapter '{adapter_name}' is not the active one ({active}): call set_adapter() first")
    return config


def _folded(key: str, tensor: torch.Tensor, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    for a_key in A_KEYS:
        mixer = tensors.get(key.removesuffix(a_key) + MIXER_KEY) if key.endswith(a_key) else None
        if mixer is not None:
            return fold_into_a(tensor, compose(mixer.to(torch.promote_types(torch.float32, mixer.dtype))))
    return tensor


def _check_all_is_loaded(written: Mapping[str, torch.Tensor], twin: PeftModel) -> None:
    """Outputs cannot tell a tensor that works at few positions only, such as the embedding of a trained token."""
    loaded = get_peft_model_state_dict(twin, twin.state_dict())  # without the second, PEFT warns of biases
    for key, tensor in written.items():
        there = loaded.get(key)
        if there is None or not torch.allclose(tensor.to(there), there, rtol=0, atol=0, equal_nan=True):
            raise DriftError(
                f"plain PEFT does not load {key} as it was saved, so nothing was written: please report it"
            )


def _card(config: LoraConfig) -> str:
    base = json.dumps(config.base_model_name_or_path or "BASE_MODEL")
    return (
        "# Folded MoSLoRA adapter\n\nPlain LoRA (`A' = M·A`, same rank); it needs no code but PEFT:\n\n```python\n"
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\n"
        'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")\n```\n'
    )
