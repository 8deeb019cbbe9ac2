"""Making PEFT 0.21 and transformers 5.23 hand the tensors of a file to the tuner as they are, where they are checked.

- PEFT renames the keys of saved modules and trained tokens before it asks the tuner, and stops with a bare KeyError at
  the first that the file lacks. Their wrappers therefore give it nothing to rename for an adapter of ours.
- transformers' `load_adapter` asks no tuner: it fills what it finds in the model, the base's own weights included, and
  logs the rest. The one step that it takes through the model is therefore replaced, on models with an adapter of ours.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftConfig, set_peft_model_state_dict
from peft.utils import other
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_utils import LoadStateDictInfo

from moslora.adapter.config import MosloraConfig
from moslora.adapter.filling import mark_unfilled

LOADING_STEP = "_load_pretrained_model"


class _Untouched(dict[str, str]):
    """A map of keys whose items and values are all there, with nothing for a loop over its keys."""

    def __iter__(self) -> Iterator[str]:
        return iter(())


class _HandingOver(other.AuxiliaryTrainingWrapper):
    configs: dict[str, PeftConfig]

    def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:
        load_map = super().adapter_state_dict_load_map(adapter_name)
        return _Untouched(load_map) if isinstance(self.configs.get(adapter_name), MosloraConfig) else load_map

    def adapter_state_dict(self, adapter_name: str, state_dict: dict[str, Any]) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        whole: Any = super()  # PEFT's wrapper of tokens does not ask whether the adapter has any
        return whole.adapter_state_dict(adapter_name, state_dict) if adapter_name in self._adapters else {}


class ModulesToSaveWrapper(_HandingOver, other.ModulesToSaveWrapper):
    """PEFT's, under its name, which printed models and `get_layer_status` show."""


class TrainableTokensWrapper(_HandingOver, other.TrainableTokensWrapper):
    """PEFT's, under its name."""


KINDS: dict[type, type] = {
    other.ModulesToSaveWrapper: ModulesToSaveWrapper,
    other.TrainableTokensWrapper: TrainableTokensWrapper,
}


def hand_over(model: nn.Module, configs: dict[str, PeftConfig]) -> None:
    """Prepare a model whose adapters are `configs`, one of them ours, for loading."""
    for module in model.modules():
        module.__class__ = KINDS.get(type(module), type(module))
        if isinstance(module, _HandingOver):
            module.configs = configs
    if isinstance(model, PreTrainedModel):
        setattr(model, LOADING_STEP, load_strictly)


def take_back(model: nn.Module) -> None:
    """Undo what `hand_over` did to a transformers model, which has no adapters any more."""
    model.__dict__.pop(LOADING_STEP, None)


def load_strictly(
    model: Any,
    state_dict: dict[str, torch.Tensor] | None,
    checkpoint_files: list[str],
    load_config: Any,
    expected_keys: list[str] | None = None,
) -> tuple[LoadStateDictInfo, None]:
    """Fill the adapter that `load_adapter` just added to `model`, through PEFT if it is ours."""
    adapter_name = next(reversed(model.peft_config))
    if not isinstance(model.peft_config[adapter_name], MosloraConfig):
        step = getattr(type(model), LOADING_STEP)
        return step(model, state_dict, checkpoint_files, load_config, expected_keys)
    mark_unfilled(model, adapter_name)
    if state_dict is None:
        state_dict = {key: tensor for file in checkpoint_files for key, tensor in _read(file).items()}
    set_peft_model_state_dict(model, state_dict, adapter_name)
    return LoadStateDictInfo(set(), set(), set(), [], {}, set()), None


def _read(file: str) -> dict[str, torch.Tensor]:
    if str(file).endswith(".safetensors"):
        return load_file(file)
    return torch.load(file, map_location="cpu", weights_only=True)
