"""MoSLoRA as the reference implementation computes it: three linear layers in a row beside the frozen one."""

from typing import Any

import torch
from torch import nn

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


class NaiveMoslora(nn.Module):
    """A frozen linear layer with A, M and B beside it, where the layer is."""

    def __init__(self, base: nn.Linear, *, rank: int, alpha: int, dropout: float) -> None:
        super().__init__()
        options: dict[str, Any] = {"bias": False, "device": base.weight.device, "dtype": torch.float32}
        self.base_layer = base
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.lora_A = nn.Linear(base.in_features, rank, **options)
        self.lora_mixer = nn.Linear(rank, rank, **options)
        self.lora_B = nn.Linear(rank, base.out_features, **options)
        nn.init.zeros_(self.lora_B.weight)
        self.scaling = alpha / rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.base_layer(x)
        h = self.dropout(x.to(self.lora_A.weight.dtype))
        return y + (self.lora_B(self.lora_mixer(self.lora_A(h))) * self.scaling).to(y.dtype)


def naive_moslora(model: Any, *, rank: int, dropout: float) -> Any:
    """The model with every target wrapped, in place."""
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] in TARGETS and isinstance(module, nn.Linear):
            model.set_submodule(name, NaiveMoslora(module, rank=rank, alpha=2 * rank, dropout=dropout))
    return model
