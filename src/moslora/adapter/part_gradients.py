"""Whether training reaches each part of a model: read from the gradients before an optimiser step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn
from transformers import TrainerCallback

from moslora.adapter.part_layers import part_of
from moslora.adapter.twin import base_of
from moslora.errors import ConfigError


@dataclass(frozen=True)
class PartGradients:
    """A part's trained modules: those in which some gradient is not zero, and those in which there is none."""

    alive: tuple[str, ...]
    dead: tuple[str, ...]


def gradients_by_part(model: nn.Module, parts: Mapping[str, str]) -> dict[str, PartGradients]:
    """Which trained modules have a gradient now, for every part that trains something.

    Call it between the backward pass and the optimiser's step. A layer with an adapter is one module: B alone has a
    gradient at first, since it starts at zero.
    """
    base = base_of(model)
    wrappers = (BaseTunerLayer, AuxiliaryTrainingWrapper)
    owners = {name for name, module in base.named_modules() if isinstance(module, wrappers)}
    has_gradient: dict[str, bool] = {}
    for name, parameter in base.named_parameters():
        if parameter.requires_grad:
            owner = _owner(name, owners)
            is_moved = parameter.grad is not None and bool(parameter.grad.any())
            has_gradient[owner] = has_gradient.get(owner, False) or is_moved
    places = {name: part_of(name, parts) for name in has_gradient}
    return {
        part: PartGradients(
            tuple(name for name, place in places.items() if place == part and has_gradient[name]),
            tuple(name for name, place in places.items() if place == part and not has_gradient[name]),
        )
        for part in parts
        if part in places.values()
    }


class CheckGradients(TrainerCallback):
    """Stops a training in which a part that was asked for gets no gradient.

    Each of the first `steps` optimiser steps is looked at: a batch without pictures gives the vision part none. `dead`
    then holds, by part, the modules that had no gradient in any of them; raises ConfigError for a part without any.
    """

    def __init__(self, parts: Mapping[str, str], *, steps: int = 1) -> None:
        self.parts, self.steps = parts, steps
        self.dead: dict[str, tuple[str, ...]] = {}
        self._seen = 0

    @property
    def is_over(self) -> bool:
        """Whether all of the steps were looked at."""
        return self._seen >= self.steps

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: Any = None, **kwargs: Any) -> None:
        """Look at the gradients, and judge them at the last of the steps."""
        if self.is_over:
            return
        found = gradients_by_part(model, self.parts)
        for part, gradients in found.items():
            earlier = self.dead.get(part, gradients.dead)
            self.dead[part] = tuple(name for name in gradients.dead if name in earlier)
        self._seen += 1
        if not self.is_over:
            return
        for part, gradients in found.items():
            if len(self.dead[part]) == len(gradients.alive) + len(gradients.dead):
                raise ConfigError(
                    f"the {part} part ({self.parts[part]}) has no gradient after {self.steps} steps, so it would not be"
                    f" trained ({len(self.dead[part])} modules, {self.dead[part][0]} first): leave it out of"
                    " adapter.parts, or check that its inputs reach the loss and gradient checkpointing is off"
                )


def _owner(parameter: str, wrappers: set[str]) -> str:
    """The layer that carries an adapter, or the module trained whole, to which a parameter belongs; else its module."""
    name = parameter.rpartition(".")[0]
    above = name
    while above:
        if above in wrappers:
            return above
        above = above.rpartition(".")[0]
    return name
