"""LoRA+: B learns at a multiple of A's rate, with PEFT's own optimiser."""

from collections.abc import Callable, Mapping
from typing import Any

from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.optim import Optimizer

MakeOptimizer = Callable[[nn.Module, type[Optimizer], dict[str, Any]], Optimizer]


def optimiser(rates: Mapping[str, float], weight_decay: float) -> MakeOptimizer:
    """What builds LoRA+'s optimiser of a kind, with its settings, for a model; `rates` hold `loraplus_lr_ratio`."""

    def make(model: Any, kind: type[Optimizer], settings: dict[str, Any]) -> Optimizer:
        return create_loraplus_optimizer(model, kind, **rates, loraplus_weight_decay=weight_decay, **settings)

    return make
