"""A second model over the same weights: the modules are copied, the tensors are shared."""

import copy
import inspect
from typing import Any

import torch
from peft import PeftModel
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from moslora.adapter.handing_over import take_back
from moslora.adapter.layers import MixerLayer


def base_of(model: nn.Module) -> Any:
    """The transformers or diffusers model inside a PeftModel; any other model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def accepts(model: nn.Module, argument: str) -> bool:
    """Whether the model's forward pass, beneath an adapter if there is one, names this argument."""
    return argument in inspect.signature(base_of(model).forward).parameters


def shared_copy(model: nn.Module) -> nn.Module:
    """The base model of `model` with its adapters, as new modules over the same tensors, in evaluation mode."""
    base = base_of(model)
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    return copy.deepcopy(base, memo).eval()


def plain_twin(model: nn.Module) -> nn.Module:
    """The base model without any adapter, as new modules over the same tensors, in evaluation mode."""
    twin = shared_copy(model)
    for name, module in list(twin.named_modules()):
        if isinstance(module, MixerLayer):
            replace(twin, name, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            replace(twin, name, module.original_module)
    return forget_adapters(twin)


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
