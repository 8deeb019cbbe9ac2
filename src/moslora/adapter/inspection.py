"""What an adapter covers and what its mixers have become: numbers for people and reports."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer, ParamWrapper
from torch import nn

from moslora.adapter.layers import MixerLayer, groups_of
from moslora.adapter.twin import base_of
from moslora.core.folding import fold_into_a, ungrouped, weight_delta


@dataclass(frozen=True)
class LayerReport:
    """One adapted layer with LoRA's factors, with or without a mixer.

    `mixer_condition` is the ratio of the mixer's largest to its smallest singular value; `mixer_from_identity` and
    `mixer_from_orthogonal` are Frobenius distances of M and MᵀM from the identity, as shares of the identity's norm;
    `update_norm` and `singular_values` (largest first) are those of `scale · B·M·A`, which with DoRA is the part before
    the magnitudes; `effective_rank` is the exponential of the entropy of the normalised singular values (1 … rank).
    """

    name: str
    kind: str
    rank: int
    scale: float
    parameters: int
    mixer_parameters: int
    mixer_condition: float | None
    mixer_from_identity: float | None
    mixer_from_orthogonal: float | None
    update_norm: float
    effective_rank: float
    singular_values: list[float]

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def inspect_adapter(model: nn.Module, adapter_name: str = "default") -> list[LayerReport]:
    """A report for every layer that carries the adapter, in the order of the model; none for PEFT's other methods."""
    return [_report(name, layer, adapter_name) for name, layer in lora_layers(model, adapter_name).items()]


def lora_layers(model: nn.Module, adapter_name: str = "default") -> dict[str, LoraLayer]:
    """The layers whose update is B·A or B·M·A, by module name in the base model."""
    return {
        name: layer
        for name, layer in base_of(model).named_modules()
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper) and _has_factors(layer, adapter_name)
    }


def mixer_of(layer: LoraLayer, adapter_name: str) -> torch.Tensor | None:
    """The layer's mixer as one matrix (R, R); None for plain LoRA, and for a convolution's Tucker core."""
    mixer = _mixer_or_core(layer, adapter_name)
    return mixer if mixer is not None and mixer.dim() == 2 else None


def _mixer_or_core(layer: Any, adapter_name: str) -> torch.Tensor | None:
    return layer.mixer_matrix(adapter_name) if isinstance(layer, MixerLayer) else None


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Trainable, total and mixer parameters of a model; each stored parameter counts once."""
    named = list(model.named_parameters())
    return {
        "trainable": sum(parameter.numel() for _, parameter in named if parameter.requires_grad),
        "total": sum(parameter.numel() for _, parameter in named),
        "mixer": sum(parameter.numel() for name, parameter in named if ".lora_mixer." in name),
    }


def _has_factors(layer: Any, adapter_name: str) -> bool:
    """Whether A and B are modules, as LoRA's, or an embedding's parameters; AdaLoRA's are neither."""
    is_linear = adapter_name in layer.lora_A and isinstance(layer.lora_A[adapter_name], nn.Module)
    return is_linear or adapter_name in layer.lora_embedding_A


def _factors(layer: Any, adapter_name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A (R, ...) and B (O, R, ...) of our layers and of PEFT's, a Tucker core folded into A."""
    if adapter_name in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter_name], layer.lora_embedding_B[adapter_name]
    a, b = layer.lora_A[adapter_name].weight, ungrouped(layer.lora_B[adapter_name].weight, groups=groups_of(layer))
    core = _mixer_or_core(layer, adapter_name)
    return (a if core is None or core.dim() == 2 else fold_into_a(a, core)), b


@torch.no_grad()
def _report(name: str, layer: Any, adapter_name: str) -> LayerReport:
    a, b = _factors(layer, adapter_name)
    mixer = mixer_of(layer, adapter_name)
    parts = dict(layer.named_parameters())
    sizes = {key: part.numel() for key, part in parts.items() if f".{adapter_name}" in key and "lora_" in key}
    condition = from_identity = from_orthogonal = None
    if mixer is not None:
        mixer = mixer.double()
        identity = torch.eye(len(mixer), dtype=mixer.dtype, device=mixer.device)
        singular = torch.linalg.svdvals(mixer)
        condition = (singular[0] / singular[-1]).item()
        from_identity = ((mixer - identity).norm() / identity.norm()).item()
        from_orthogonal = ((mixer.T @ mixer - identity).norm() / identity.norm()).item()
    singular = _update_singular_values(a.double(), mixer, b.double(), scale=layer.scaling[adapter_name])
    return LayerReport(
        name=name,
        kind=type(layer.get_base_layer()).__name__,
        rank=layer.r[adapter_name],
        scale=layer.scaling[adapter_name],
        parameters=sum(sizes.values()),
        mixer_parameters=sum(size for key, size in sizes.items() if "lora_mixer" in key),
        mixer_condition=condition,
        mixer_from_identity=from_identity,
        mixer_from_orthogonal=from_orthogonal,
        update_norm=singular.norm().item(),
        effective_rank=_effective_rank(singular),
        singular_values=singular.tolist(),
    )


def _update_singular_values(
    a: torch.Tensor, mixer: torch.Tensor | None, b: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Singular values of `scale · B·M·A` through the R × R core, without forming the update."""
    r_a = torch.linalg.qr(a.flatten(1).T, mode="r")[1]
    r_b = torch.linalg.qr(b.flatten(1), mode="r")[1]
    return torch.linalg.svdvals(weight_delta(r_a.T, mixer, r_b, scale=scale))


def _effective_rank(singular: torch.Tensor) -> float:
    total = singular.sum()
    if total == 0:
        return 0.0
    shares = singular / total
    shares = shares[shares > 0]
    return torch.exp(-(shares * shares.log()).sum()).item()
