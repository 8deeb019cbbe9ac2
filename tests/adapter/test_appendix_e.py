"""Is a mixer more than an initialisation of A? All but a fixed orthogonal one are, and under Adam that one too.

Each test trains two adapters of one linear layer and compares their updates B·M·A on the way (paper, appendix E).
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn

from moslora import MosloraConfig

STEPS, INPUTS, OUTPUTS, RANK = 60, 12, 10, 4
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(INPUTS, OUTPUTS, bias=False, dtype=torch.float64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.02)


def adapted(mixer: str, *, is_trained: bool) -> Any:
    torch.manual_seed(0)
    config = MosloraConfig(r=RANK, lora_alpha=RANK, target_modules=["layer"], mixer=mixer, mixer_trainable=is_trained)
    return get_peft_model(Model(), config, autocast_adapter_dtype=False).double()


def updates(model: Any, make: Optimizer) -> torch.Tensor:
    """The update after each step of fitting a fixed random map, (STEPS, OUTPUTS, INPUTS)."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, INPUTS, generator=generator, dtype=torch.float64)
    wanted = torch.randn(64, OUTPUTS, generator=generator, dtype=torch.float64)
    optimizer = make([parameter for parameter in model.parameters() if parameter.requires_grad])
    layer, found = model.get_base_model().layer, []
    for _ in range(STEPS):
        (model(x) - wanted).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(layer.get_delta_weight("default").detach())
    return torch.stack(found)


def distance(mixer: str, *, is_trained: bool, make: Optimizer) -> float:
    """How far apart, relative to their size, the updates of a mixer and of the same mixer folded into A first end."""
    mixed, folded = adapted(mixer, is_trained=is_trained), adapted("identity", is_trained=False)
    source, target = mixed.get_base_model().layer, folded.get_base_model().layer
    with torch.no_grad():
        a = source.lora_A["default"].weight
        target.lora_A["default"].weight.copy_(source.mixer_matrix("default") @ a)
    one, two = updates(mixed, make), updates(folded, make)
    assert one[-1].norm() > 0.1
    return ((one - two).flatten(1).norm(dim=1) / two.flatten(1).norm(dim=1)).max().item()


def test_a_fixed_orthogonal_mixer_is_an_initialisation_under_sgd() -> None:
    assert distance("orthogonal", is_trained=False, make=sgd) < 1e-7  # it is drawn, and so orthogonal, in float32


@pytest.mark.parametrize("mixer", ["kaiming", "normal"])
def test_a_fixed_mixer_that_is_not_orthogonal_is_more_than_an_initialisation(mixer: str) -> None:
    assert distance(mixer, is_trained=False, make=sgd) > 1e-2


@pytest.mark.parametrize("mixer", ["orthogonal", "kaiming"])
def test_a_learned_mixer_is_more_than_an_initialisation(mixer: str) -> None:
    assert distance(mixer, is_trained=True, make=sgd) > 1e-3


def test_adam_tells_even_a_fixed_orthogonal_mixer_from_an_initialisation() -> None:
    """Adam scales each entry by its own history, which a rotation of A changes."""
    assert distance("orthogonal", is_trained=False, make=adam) > 1e-2
