"""bitsandbytes layers with a mixer; imported only where a model has such layers (bitsandbytes >= 0.50).

On a CPU with AVX512-BF16, bitsandbytes repacks 4-bit weights at the first forward pass in evaluation mode, and rounds
their scales to bfloat16. Dequantising, merging and DoRA norms then read the packed bytes as if they were not packed.
`keep_unpacked` switches the repacking off for a model before that can happen.
"""

from typing import Any

import bitsandbytes as bnb
from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse
from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit
from peft.tuners.lora.bnb import Linear8bitLt as PeftLinear8bitLt
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from moslora.adapter.layers import MixerLayer
from moslora.errors import UnsupportedLayerError


class Linear8bitLt(MixerLayer, PeftLinear8bitLt):
    """`bitsandbytes.nn.Linear8bitLt`; merging into it quantises again (PEFT warns)."""


class Linear4bit(MixerLayer, PeftLinear4bit):
    """`bitsandbytes.nn.Linear4bit`; merging into it quantises again (PEFT warns)."""


# bitsandbytes' two named kinds of 4 bit differ from Linear4bit in their constructor only.
LAYERS: dict[type[nn.Module], Any] = {
    bnb.nn.Linear8bitLt: Linear8bitLt,
    bnb.nn.Linear4bit: Linear4bit,
    bnb.nn.LinearNF4: Linear4bit,
    bnb.nn.LinearFP4: Linear4bit,
}


def create(target: nn.Module, adapter_name: str, *, config: Any, **kwargs: Any) -> nn.Module:
    """The layer with a mixer for a bitsandbytes layer; UnsupportedLayerError for a class not in LAYERS."""
    base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
    if type(base) not in LAYERS:
        raise UnsupportedLayerError(
            f"bitsandbytes' {type(base).__name__} is not known to carry a mixer"
            f" (allowed: {', '.join(kind.__name__ for kind in LAYERS)}); leave it out of target_modules"
        )
    if config.lora_bias:
        raise UnsupportedLayerError(
            f"lora_bias=True does not work on {type(base).__name__} layers: PEFT merges their bias unscaled"
        )
    if config.use_dora and type(base) is bnb.nn.Linear8bitLt:
        raise UnsupportedLayerError(
            "use_dora=True does not work on Linear8bitLt layers: bitsandbytes loses their scales when DoRA reads the"
            " weight before the first forward pass; use 4-bit (nf4) or set use_dora=False"
        )
    return LAYERS[type(base)](target, adapter_name, config=config, **kwargs)


def keep_unpacked(model: nn.Module) -> None:
    """Undo the CPU packing of all 4-bit layers of a model and keep it off, so that weights stay readable.

    A layer that was packed already (the model ran in evaluation mode before) is unpacked by bitsandbytes' own inverse,
    which keeps the bfloat16 rounding of its scales.
    """
    layers: list[Any] = [module for module in model.modules() if LAYERS.get(type(module)) is Linear4bit]
    for module in layers:
        module.support_avx512bf16_for_cpu = False
        weight: Any = module.weight
        if getattr(getattr(weight, "quant_state", None), "packing_format_for_cpu", False):
            weight.data, weight.quant_state = _convert_weight_packed_for_cpu_inverse(weight.data, weight.quant_state)
