"""Merging an adapter into a model of its own; sums in float32 or wider, a quantised base dequantised first."""

import copy
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import nn

from moslora.adapter.layers import MixerLayer
from moslora.adapter.storage import load_adapter
from moslora.adapter.twin import forget_adapters, own_weights, replace, shared_copy
from moslora.core.folding import is_finite
from moslora.core.precision import wide_dtype
from moslora.errors import CheckpointError, ConfigError


@torch.no_grad()
def merged_model(model: nn.Module, *, adapter_name: str = "default", dtype: torch.dtype | None = None) -> nn.Module:
    """A plain model with the adapter merged in, in evaluation mode; `model` is left as it is.

    Weights are stored in `dtype`, by default each in the base model's own; tensors that neither the adapter nor `dtype`
    changes are shared with `model`. Tied weights are separated where the adapter changes one of them. Raises
    ConfigError for a quantised base without `dtype`, and CheckpointError for a bias that has no place or a weight that
    is not finite.
    """
    merged = shared_copy(model)
    changed = _changed_weights(merged, adapter_name)
    quantised = [name for name, module in merged.named_modules() if is_quantised(module)]
    if quantised and dtype is None:
        raise _quantised_error(quantised[0])
    for name, module in list(merged.named_modules()):
        if isinstance(module, AuxiliaryTrainingWrapper):
            own_weights(module)
            saved = module.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=[adapter_name])
            replace(merged, name, saved)
    for name, module in list(merged.named_modules()):
        if isinstance(module, MixerLayer):
            replace(merged, name, _merged_layer(module, adapter_name, dtype=dtype, name=name))
    for name, module in list(merged.named_modules()):
        if is_quantised(module):
            replace(merged, name, dequantised(module))
    _separate_from(merged, changed)
    if dtype is not None:
        own_weights(merged, dtype)
    if quantised:
        _forget_quantisation(merged)
    _declare_ties(merged)
    return forget_adapters(merged)


@torch.no_grad()
def merged_by_peft(base: nn.Module, adapter_folder: str | Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """A saved adapter of one of PEFT's own methods merged into `base`, by PEFT, in float32; `base` is used up.

    Weights are stored in `dtype`, by default each in the base model's own; raises as `merged_model`.
    """
    stored = {name: parameter.dtype for name, parameter in base.named_parameters()}
    _dequantise(base, dtype)
    adapted: Any = load_adapter(base.float(), adapter_folder)
    _separate_ties(adapted.get_base_model())
    _take_saved_modules(adapted.get_base_model())
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise CheckpointError(f"{adapter_folder} cannot be merged: {' '.join(str(error).split())}") from error
    for name, parameter in merged.named_parameters():
        parameter.data = parameter.data.to(dtype or stored[name])
    _declare_ties(merged)
    return forget_adapters(merged.eval())


@torch.no_grad()
def whole_model(model: nn.Module, *, dtype: torch.dtype | None = None) -> nn.Module:
    """A model without an adapter as it is saved: dequantised, its weights in `dtype`; `model` is used up.

    Raises ConfigError for a quantised model without `dtype`.
    """
    _dequantise(model, dtype)
    return model.to(dtype).eval() if dtype is not None else model.eval()


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer holds a weight quantised by bitsandbytes."""
    return type(module._parameters.get("weight")).__name__ in ("Params4bit", "Int8Params")


def dequantised(layer: Any) -> nn.Linear:
    """A plain `nn.Linear` in float32 with the values the quantised layer stands for."""
    weight = dequantize_module_weight(layer).float()
    plain = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None, device=weight.device)
    plain.weight.data = weight
    if layer.bias is not None:
        plain.bias.data = layer.bias.data.float()
    return plain.requires_grad_(False)


def _merged_layer(layer: MixerLayer, adapter_name: str, *, dtype: torch.dtype | None, name: str) -> nn.Module:
    base: Any = layer.get_base_layer()
    if adapter_name not in layer.r:
        return base
    dtype = dtype or base.weight.dtype
    plain = dequantised(base) if is_quantised(base) else _alone(base)
    wide = plain.weight.detach().to(wide_dtype(plain.weight))
    weight = layer.lora_variant[adapter_name].merge_safe(layer, adapter_name, wide)
    if not is_finite(weight):
        raise CheckpointError(f"{name}: the merged weight is not finite, so the adapter or the base model is damaged")
    plain.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if layer.lora_bias.get(adapter_name):
        if plain.bias is None:
            raise CheckpointError(
                f"{name} has no bias that could take the adapter's: keep the adapter (moslora fold), or merge into a"
                " model whose layers have biases"
            )
        bias = plain.bias + layer.lora_B[adapter_name].bias * layer.scaling[adapter_name]
        plain.bias = nn.Parameter(bias.to(plain.bias.dtype), requires_grad=False)
    return plain


def _dequantise(model: nn.Module, dtype: torch.dtype | None) -> None:
    """Plain layers in float32 in place of the quantised ones, for weights that will be stored in `dtype`."""
    quantised = [name for name, module in model.named_modules() if is_quantised(module)]
    if quantised and dtype is None:
        raise _quantised_error(quantised[0])
    for name in quantised:
        replace(model, name, dequantised(model.get_submodule(name)))
    if quantised:
        _forget_quantisation(model)


def _take_saved_modules(model: nn.Module) -> None:
    """Put the modules that were trained whole in the place of their wrappers; PEFT's LoHa, LoKr and VeRA cannot."""
    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            replace(model, name, module.modules_to_save[module.active_adapters[0]])


def _quantised_error(first: str) -> ConfigError:
    return ConfigError(
        f"the base model is quantised ({first}, ...) and merging does not quantise again:"
        " choose the dtype of the merged weights (float32, bfloat16 or float16)"
    )


def _separate_ties(model: nn.Module) -> None:
    """Give each adapted layer a weight of its own, since PEFT merges into a shared one for all that share it."""
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            layer: Any = module.get_base_layer()
            layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)


def _alone(module: nn.Module) -> Any:
    """A module over the same tensors whose weight can be replaced, though `module` may stand in another place too."""
    own = copy.copy(module)
    own._parameters = dict(module._parameters)
    return own


def _changed_weights(model: nn.Module, adapter: str) -> set[nn.Parameter]:
    """The base's weights that the adapter changes."""
    changed = set()
    for module in model.modules():
        if isinstance(module, MixerLayer) and adapter in module.r:
            changed.update(module.get_base_layer().parameters())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            changed.update(module.original_module.parameters())
    return changed


def _separate_from(model: nn.Module, changed: set[nn.Parameter]) -> None:
    """Give each module that was tied to a changed weight its own copy of the old one.

    Of those that go on sharing it, only one would be written, and loading would tie the others to the changed weight.
    """
    left = [module for module in model.modules() if module._parameters.get("weight") in changed]
    for module in left if len(left) > 1 else []:
        own_weights(module)


def _declare_ties(model: Any) -> None:
    """Say in the config that head and embedding differ, where the config can say it without changing anything else."""
    config = getattr(model, "config", None)
    if config is None or not getattr(config, "tie_word_embeddings", False):
        return
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or embedding.weight is head.weight:
        return
    untied = copy.deepcopy(config)
    untied.tie_word_embeddings = False
    if not type(config).from_dict(untied.to_dict()).tie_word_embeddings:  # T5's always ties, and takes it for a scale
        config.tie_word_embeddings = False


def _forget_quantisation(model: Any) -> None:
    if hasattr(getattr(model, "config", None), "quantization_config"):
        del model.config.quantization_config
    for attribute in ("hf_quantizer", "quantization_method", "is_quantized", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        model.__dict__.pop(attribute, None)
