"""Which modules a configuration names, which of its patterns name nothing, and which modules no adapter can reach."""

import copy
import re
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer, _check_lora_target_modules_mamba, check_target_module_exists
from peft.utils.constants import DUMMY_TARGET_MODULES, INCLUDE_LINEAR_LAYERS_SHORTHAND
from torch import nn

from moslora.errors import ConfigError, UnsupportedLayerError, suggestion

SAVED_BY_PEFT = ("classifier", "score", "qa_outputs")  # added by PEFT for classification tasks, present or not
REGULAR = ("rank_pattern", "alpha_pattern", "mixer_pattern", "dropout_pattern")
FIELDS = ("target_modules", "exclude_modules", "modules_to_save", *REGULAR, "layers_to_transform")
SHORTHANDS = (INCLUDE_LINEAR_LAYERS_SHORTHAND, DUMMY_TARGET_MODULES)
READ_TOO = {  # layers of which transformers 5.23 reads the weight, on some path or all, in models PEFT does not list
    **dict.fromkeys(("mamba", "falcon_mamba", "jamba"), ("dt_proj",)),
    **dict.fromkeys(("bamba", "granitemoehybrid", "zamba2"), ("out_proj", "conv1d")),
}


def names_to_match(model: nn.Module) -> list[str]:
    """The names of the model's modules, without what adapters put into its layers."""
    adapted = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    return [name for name, _ in model.named_modules() if not name.startswith(adapted)]


def check_patterns(config: Any, module_names: Iterable[str]) -> None:
    """Raise ConfigError for the first pattern of the configuration that matches no module of the model."""
    names = [name for name in module_names if name]
    for field, pattern in unmatched_patterns(config, names):
        leaves = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
        shown = ", ".join(leaves[:12]) + (", ..." if len(leaves) > 12 else "")
        advice = suggestion(pattern, leaves)
        if isinstance(getattr(config, field), str):
            advice = f": text is a regular expression for whole names, so write names as a list, ['{pattern}']"
        raise ConfigError(f"{field}: '{pattern}' matches no module of the model{advice} (module names: {shown})")


def unmatched_patterns(config: Any, names: list[str]) -> list[tuple[str, str]]:
    """Every (field, pattern) of a configuration that matches none of the module names."""
    return [
        (field, str(pattern))
        for field in FIELDS
        for pattern in _patterns(getattr(config, field, None))
        if not any(_matches(config, field, pattern, name) for name in names)
    ]


def check_is_called(model: nn.Module, name: str) -> None:
    """Raise UnsupportedLayerError for a layer whose weight the model reads instead of calling the layer.

    An adapter there would never train: Mamba's fused kernels take the base weight of `out_proj`. PEFT refuses LoRA
    there, by a list of types that ours is not on.
    """
    leaf = name.rpartition(".")[2]
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    is_read = leaf in READ_TOO.get(str(model_type), ())
    if not is_read:
        try:
            _check_lora_target_modules_mamba(SimpleNamespace(peft_type="LORA"), model, leaf)  # pyright: ignore[reportArgumentType]
        except ValueError:
            is_read = True
    if is_read:
        raise UnsupportedLayerError(
            f"{name}: models of type {model_type} read this layer's weight and do not call the layer, so an adapter"
            f" there would not be trained; leave '{leaf}' out of target_modules (exclude_modules=['{leaf}'])"
        )


def _patterns(value: Any) -> list[Any]:
    if value is None or (isinstance(value, str) and value.lower() in SHORTHANDS):
        return []
    if isinstance(value, (str, int)):
        return [value]
    return sorted(pattern for pattern in value if pattern not in SAVED_BY_PEFT)


def _matches(config: Any, field: str, pattern: Any, name: str) -> bool:
    if field == "layers_to_transform":
        one = copy.copy(config)
        one.layers_to_transform = [pattern]
        return bool(check_target_module_exists(one, name))
    if field in REGULAR:
        return re.match(rf"(.*\.)?({pattern})$", name) is not None
    if isinstance(getattr(config, field), str):
        return re.fullmatch(pattern, name) is not None
    return name == pattern or name.endswith(f".{pattern}")
