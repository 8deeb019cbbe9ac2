"""Every kind of layer that carries a mixer, at small shapes; and the precisions it is checked in."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

INPUTS, OUTPUTS, RANK = 64, 96, 8


@dataclass(frozen=True)
class Kind:
    """A layer, the shape of its input, and the adapter's options beside rank and mixer."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    is_quantised: bool = False


@dataclass(frozen=True)
class Regime:
    """The base's dtype, and whether autocast to bfloat16 or a compiler is on; factors are in float32, as PEFT has them.

    `kinds` names those that are checked, by default all.
    """

    dtype: torch.dtype
    has_autocast: bool = False
    is_compiled: bool = False
    kinds: tuple[str, ...] | None = None


EAGER = {
    "float32": Regime(torch.float32),
    "bfloat16": Regime(torch.bfloat16),
    "float16": Regime(torch.float16),
    "autocast": Regime(torch.float32, has_autocast=True),
}
# Compiling takes most of the time: one of each path, and the most frequent ones in bfloat16 too.
FREQUENT = ("linear", "linear, chain of 3")
COMPILED = {
    "compiled": Regime(
        torch.float32,
        is_compiled=True,
        kinds=(*FREQUENT, "linear, DoRA", "conv2d", "conv2d, 1×1", "embedding"),
    ),
    "compiled bfloat16": Regime(torch.bfloat16, is_compiled=True, kinds=FREQUENT),
}


def transposed() -> Conv1D:
    layer = Conv1D(OUTPUTS, INPUTS)
    nn.init.normal_(layer.bias)
    return layer


def linear() -> nn.Linear:
    return nn.Linear(INPUTS, OUTPUTS)


def conv2d(**options: Any) -> nn.Conv2d:
    return nn.Conv2d(16, 24, 3, padding=1, **options)


TOKENS, IMAGE = (4, 32, INPUTS), (2, 16, 9, 8)
TUCKER = {"use_tucker": True, "mixer": "zero", "init_lora_weights": False}

KINDS = {
    "linear": Kind(linear, TOKENS),
    "linear, few tokens": Kind(linear, (3, INPUTS)),
    "linear, chain of 3": Kind(linear, TOKENS, {"mixer_depth": 3}),
    "linear, DoRA": Kind(linear, TOKENS, {"use_dora": True}),
    "Conv1D (transposed)": Kind(transposed, TOKENS),
    "Conv1D, DoRA": Kind(transposed, TOKENS, {"use_dora": True}),
    "conv1d": Kind(lambda: nn.Conv1d(16, 24, 3, padding=1), (2, 16, 19)),
    "conv2d": Kind(lambda: conv2d(stride=2), IMAGE),
    "conv2d, 1×1": Kind(lambda: nn.Conv2d(16, 24, 1), IMAGE),
    "conv2d, grouped": Kind(lambda: conv2d(groups=4), IMAGE),
    "conv2d, DoRA": Kind(conv2d, IMAGE, {"use_dora": True}),
    "conv2d, Tucker core": Kind(lambda: conv2d(stride=2), IMAGE, TUCKER),
    "conv3d": Kind(lambda: nn.Conv3d(8, 12, (1, 3, 3), padding=1), (2, 8, 5, 6, 7)),
    "embedding": Kind(lambda: nn.Embedding(50, INPUTS), (4, 32)),
}


def quantised_kinds() -> dict[str, Kind]:
    """The kinds of bitsandbytes; none where it is not installed."""
    if find_spec("bitsandbytes") is None:
        return {}
    import bitsandbytes as bnb

    def four_bit() -> nn.Module:
        return bnb.nn.Linear4bit(INPUTS, OUTPUTS, compute_dtype=torch.bfloat16, quant_type="nf4")

    def eight_bit() -> nn.Module:
        return bnb.nn.Linear8bitLt(INPUTS, OUTPUTS, has_fp16_weights=False)

    return {
        "4-bit linear": Kind(four_bit, TOKENS, is_quantised=True),
        "8-bit linear": Kind(eight_bit, TOKENS, is_quantised=True),
    }
