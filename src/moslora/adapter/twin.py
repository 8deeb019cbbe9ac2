"""A second model over the same weights: the modules are copied, the tensors are shared."""

import copy
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import is_compiled_module
from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from moslora.adapter.handing_over import take_back
from moslora.adapter.layers import MixerLayer


def base_of(model: Any) -> Any:
    """The transformers or diffusers model inside a PeftModel, compiled or not; any other model itself."""
    model = model._orig_mod if is_compiled_module(model) else model
    return model.get_base_model() if isinstance(model, PeftModel) else model


def uncompiled(model: Any) -> Any:
    """The model without torch.compile's wrappers, whole or around parts of it, over the same tensors.

    It is the model itself where there is none. A wrapper would put `_orig_mod` into the names of what it holds.
    """
    while is_compiled_module(model):
        model = model._orig_mod
    compiled = [module for module in model.modules() if is_compiled_module(module)]
    if not compiled:
        return model
    memo = _shared_tensors(model)
    for module in reversed(compiled):  # the inner ones first
        memo[id(module)] = copy.deepcopy(module._orig_mod, memo)
    plain = copy.deepcopy(model, memo)
    plain.__dict__.pop("_orig_mod", None)  # where accelerate keeps the model it compiled in regions
    return plain


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether the model's forward pass, beneath an adapter if there is one, names this argument."""
    return argument in inspect.signature(base_of(model).forward).parameters


def shared_copy(model: nn.Module) -> nn.Module:
    """The base model of `model` with its adapters, as new modules over the same tensors, in evaluation mode."""
    base = base_of(uncompiled(model))
    return copy.deepcopy(base, _shared_tensors(base)).eval()


def plain_twin(model: nn.Module) -> nn.Module:
    """The base model without any adapter, as new modules over the same tensors, in evaluation mode."""
    twin = shared_copy(model)
    for name, module in list(twin.named_modules()):
        if isinstance(module, MixerLayer):
            replace(twin, name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            replace(twin, name, module.original_module)
    return forget_adapters(twin)


def _shared_tensors(model: nn.Module) -> dict[int, Any]:
    """What `copy.deepcopy` shall not copy: parameters, buffers, and tensors that a module keeps as an attribute."""
    kept = (value for module in model.modules() for value in vars(module).values() if isinstance(value, torch.Tensor))
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers(), *kept)}


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where the submodule `name` stood."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def forget_adapters(model: nn.Module) -> nn.Module:
    """Remove the marks that say a model carries adapters."""
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        model.__dict__.pop(attribute, None)
    take_back(model)
    return model


def own_empty(model: nn.Module, names: Iterable[str]) -> None:
    """Give a twin parameters of its own, full of NaN, for those of these names that it has.

    What is loaded into them is not written into the tensors that the twin shares, and what is not loaded shows.
    """
    for name in names:
        parent, _, key = name.rpartition(".")
        try:
            module = model.get_submodule(parent)
        except AttributeError:
            continue
        parameter = module._parameters.get(key)
        if parameter is not None and parameter.is_floating_point():
            module._parameters[key] = nn.Parameter(torch.full_like(parameter, torch.nan), requires_grad=False)


def own_weights(module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Give a module and its parts parameters of their own (copied, in `dtype` if given), keeping ties inside it."""
    owned: dict[nn.Parameter, nn.Parameter] = {}
    for part in module.modules():
        for key, parameter in part._parameters.items():
            if parameter is None:
                continue
            if parameter not in owned:
                is_cast = dtype is not None and parameter.is_floating_point()
                data = parameter.detach().to(dtype, copy=True) if is_cast else parameter.detach().clone()
                owned[parameter] = nn.Parameter(data, requires_grad=parameter.requires_grad)
            part._parameters[key] = owned[parameter]
