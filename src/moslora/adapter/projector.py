"""The projector between vision encoder and language model: trained alone (LLaVA's first stage), saved and loaded."""

from pathlib import Path
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from moslora.adapter.merging import is_quantised
from moslora.adapter.strictness import first
from moslora.adapter.twin import base_of
from moslora.errors import CheckpointError, ConfigError
from moslora.files import write_atomically

FILE = "projector.safetensors"


def train_only(model: nn.Module, prefix: str) -> list[str]:
    """Freeze all of a model but the modules below `prefix`; returns the names of the parameters that train.

    Raises ConfigError for a projector that is quantised or has no parameters.
    """
    projector = projector_of(model, prefix)
    if any(is_quantised(module) for module in projector.modules()):
        raise ConfigError(f"{prefix} is quantised and cannot be trained: leave it out (llm_int8_skip_modules)")
    model.requires_grad_(False)
    projector.requires_grad_(True)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trained:
        raise ConfigError(f"{prefix} has no parameters, so there is nothing to train")
    return trained


def train_in_float32(model: nn.Module, prefix: str) -> None:
    """Hold the projector that trains in float32 within a 16-bit model: there, a small step would be rounded away.

    What enters it is brought to its dtype, what leaves it is rounded to the dtype it had, so the model runs as before,
    with autocast and without, also once the projector is rounded back. PEFT does this for an adapter's factors, not for
    modules that are trained whole.
    """
    projector = projector_of(model, prefix)
    dtype = next(projector.parameters()).dtype
    if dtype == torch.float32:
        return
    projector.float()
    projector.register_forward_pre_hook(_to_its_dtype)
    projector.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))


def save_projector(model: nn.Module, prefix: str, path: str | Path) -> None:
    """Write the projector's tensors, by their names in the base model, in their own dtypes.

    Of a model with an adapter it is the projector that the adapter trained. Raises OutputError.
    """
    write_atomically(path, save(_tensors(model, prefix), metadata={"format": "pt"}))


@torch.no_grad()
def load_projector(model: nn.Module, prefix: str, path: str | Path) -> None:
    """Fill the projector with the tensors of a file, each cast to the dtype it has in the model.

    Raises CheckpointError, and changes nothing, unless the file holds the projector's tensors in their shapes and
    nothing else.
    """
    try:
        given = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable file of tensors ({error}): save or copy it again") from None
    own = _tensors(model, prefix)
    problems = {
        "missing": own.keys() - given.keys(),
        "unexpected": given.keys() - own.keys(),
        "of another shape": {key for key in own.keys() & given.keys() if own[key].shape != given[key].shape},
    }
    found = [f"{len(keys)} tensors are {what} ({first([*keys])})" for what, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"{path} does not hold the projector {prefix}: {'; '.join(found)}; give the file of its model"
        )
    for key, tensor in own.items():
        tensor.copy_(given[key])


def projector_of(model: Any, prefix: str) -> nn.Module:
    """The projector of a base model, or the one that the active adapter trains. Raises ConfigError where none is."""
    try:
        found: Any = base_of(model).get_submodule(prefix)
    except AttributeError:
        raise ConfigError(f"{type(base_of(model)).__name__} has no module {prefix}: name its projector") from None
    if isinstance(found, ModulesToSaveWrapper) and (active := [*found.active_adapters]):
        return found.modules_to_save[active[0]]
    return found.original_module if isinstance(found, ModulesToSaveWrapper) else found


def _to_its_dtype(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    dtype = next(module.parameters()).dtype
    return tuple(one.to(dtype) if one.is_floating_point() else one for one in inputs)  # pictures' sizes stay whole


def _tensors(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    state = projector_of(model, prefix).state_dict()
    return {f"{prefix}.{key}": tensor.contiguous() for key, tensor in state.items()}
