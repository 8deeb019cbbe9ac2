"""What PEFT makes of target names where a mixture's experts are bare parameters.

Read in PEFT 0.21 (`peft/utils/transformers_weight_conversion.py`). In models whose experts were lists of layers in
transformers 4, it takes the layers' former names for the experts (`gate_proj`, `w1`, and all of them for `all-linear`)
and moves them into `target_parameters`. It does so for plain LoRA only, and leaves out layers that have such a name
and are still layers: dense blocks and shared experts.
"""

import copy
from typing import Any

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import (
    _MOE_TARGET_MODULE_MAPPING,
    convert_peft_config_for_transformers,
)
from torch import nn

from moslora.adapter.coverage import Coverage, kinds
from moslora.errors import UnsupportedLayerError

FORMER_NAMES = {name for names in _MOE_TARGET_MODULE_MAPPING.values() for name in names}


def check_plain_targets(config: LoraConfig, model: nn.Module) -> None:
    """Refuse a plain LoRA configuration whose layers PEFT would not adapt, since it takes their names for the experts.

    Raises UnsupportedLayerError.
    """
    probe = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(probe, model, None)
        taken = set(probe.target_parameters or ()) - set(config.target_parameters or ())
    except ValueError:  # only a part of what is one parameter now is named
        taken, probe.target_modules = {"gate_up_proj"}, None
    if taken:
        raise UnsupportedLayerError(
            f"PEFT takes {_taken(config, probe)} in plain LoRA's target_modules for the experts of a"
            f" {_model_type(model)} model, and would not adapt the layers of that name: leave them out of"
            " target_modules, or merge instead of folding"
        )


def plain_layers(model: Any) -> list[str]:
    """The names of a base's linear layers that PEFT does not take for experts, without the head: targets for all."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and part is not head]
    return sorted({name.rpartition(".")[2] for name in linear} - FORMER_NAMES)


def layers_replaced(covered: Coverage, config: Any) -> list[str]:
    """The kinds of layers without an adapter, although an injected configuration named them, since the experts have it.

    `config` is the configuration as PEFT left it.
    """
    parameters = {str(name) for name in getattr(config, "target_parameters", None) or ()}
    taken = {old for names in _MOE_TARGET_MODULE_MAPPING.values() for old, new in names.items() if new in parameters}
    return kinds(layer for layer in covered.layers if not layer.is_adapted and layer.kind in taken)


def _taken(config: LoraConfig, probe: LoraConfig) -> str:
    """The names that PEFT took away, or the pattern that they were found with."""
    given, kept = config.target_modules, probe.target_modules
    if not isinstance(given, set):
        return f"'{given}'"
    return ", ".join(sorted({name.rpartition(".")[2] for name in given - (kept if isinstance(kept, set) else set())}))


def _model_type(model: Any) -> str:
    return getattr(getattr(model, "config", None), "model_type", type(model).__name__)
