"""What PEFT makes of target names where a mixture's experts are bare parameters.

Read in PEFT 0.21 (`peft/utils/transformers_weight_conversion.py`). In models whose experts were lists of layers in
transformers 4, it takes the layers' former names for the experts (`gate_proj`, `w1`, and all of them for `all-linear`)
and moves them into `target_parameters`. It does so for plain LoRA only, and leaves out layers that have such a name
and are still layers: dense blocks and shared experts.
"""

import copy
from typing import Any

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn

from moslora.adapter.coverage import Coverage
from moslora.errors import UnsupportedLayerError


def check_plain_targets(config: LoraConfig, model: nn.Module) -> None:
    """Refuse a plain LoRA configuration whose layers PEFT would not adapt, since it takes their names for the experts.

    Raises UnsupportedLayerError.
    """
    probe = copy.deepcopy(config)
    try:
        convert_peft_config_for_transformers(probe, model, None)
        taken = set(probe.target_parameters or ()) - set(config.target_parameters or ())
    except ValueError:  # only a part of what is one parameter now is named
        taken = {"gate_up_proj"}
    if taken:
        kept = probe.target_modules if isinstance(probe.target_modules, set) else set()
        names = {name.rpartition(".")[2] for name in set(config.target_modules or ()) - kept}
        raise UnsupportedLayerError(
            f"PEFT takes {', '.join(sorted(names))} in plain LoRA's target_modules for the experts of a"
            f" {_model_type(model)} model, and would not adapt the layers of that name: leave them out of"
            " target_modules, or merge instead of folding"
        )


def layers_replaced(covered: Coverage, config: Any) -> list[str]:
    """The kinds of layers without an adapter, although an injected configuration named them, since the experts have it.

    `config` is the configuration as PEFT left it.
    """
    parameters = {str(name) for name in getattr(config, "target_parameters", None) or ()}
    if not parameters:
        return []
    former = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
    names = {name for parameter in parameters for name in former.get(parameter, ())}
    return sorted({layer.kind for layer in covered.layers if not layer.is_adapted and layer.kind in names})


def _model_type(model: Any) -> str:
    return getattr(getattr(model, "config", None), "model_type", type(model).__name__)
