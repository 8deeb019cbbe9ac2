"""The inside of a trained adapter as a record: mixers, singular values, and how far the mixers have moved.

A run takes `mixers_of` before the first step and `picture_adapter` after the last; reports only read the record.
"""

from collections.abc import Mapping

import torch
from torch import nn

from moslora.adapter.inspection import LayerReport, inspect_adapter, lora_layers, mixer_of
from moslora.records import AdapterPictures, LayerPicture

LARGEST_MIXER = 64  # rank up to which the record holds the matrix itself
DIGITS = 5  # significant


@torch.no_grad()
def mixers_of(model: nn.Module, adapter_name: str = "default") -> dict[str, torch.Tensor]:
    """A copy of each layer's mixer (R, R) on the CPU, by module name in the base model; empty without mixers."""
    mixers = {name: mixer_of(layer, adapter_name) for name, layer in lora_layers(model, adapter_name).items()}
    return {name: mixer.detach().cpu().clone() for name, mixer in mixers.items() if mixer is not None}


def picture_adapter(
    model: nn.Module, *, method: str, start: Mapping[str, torch.Tensor] | None, adapter_name: str = "default"
) -> AdapterPictures:
    """Picture every layer with LoRA's factors; other methods of PEFT give a record without layers.

    `start` is what `mixers_of` returned before training; without it nothing is said about the way from there.
    """
    mixers = mixers_of(model, adapter_name)
    layers = [
        _picture(report, mixers.get(report.name), (start or {}).get(report.name))
        for report in inspect_adapter(model, adapter_name)
    ]
    return AdapterPictures(method=method, layers=layers)


def _picture(report: LayerReport, mixer: torch.Tensor | None, start: torch.Tensor | None) -> LayerPicture:
    shown = [] if mixer is None or len(mixer) > LARGEST_MIXER else mixer.tolist()
    return LayerPicture(
        name=report.name,
        rank=report.rank,
        update_norm=_rounded(report.update_norm),
        singular_values=[_rounded(value) for value in report.singular_values[: report.rank]],
        effective_rank=_rounded(report.effective_rank),
        mixer=[[_rounded(value) for value in row] for row in shown] or None,
        mixer_from_start=_distance(mixer, start),
        mixer_from_identity=_optional(report.mixer_from_identity),
        mixer_from_orthogonal=_optional(report.mixer_from_orthogonal),
    )


def _distance(mixer: torch.Tensor | None, start: torch.Tensor | None) -> float | None:
    """The way from the start as a share of the start's norm; None where there was no mixer, or it started at zero."""
    if mixer is None or start is None or not start.any():
        return None
    start = start.double()
    return _rounded(((mixer.double() - start).norm() / start.norm()).item())


def _optional(value: float | None) -> float | None:
    return None if value is None else _rounded(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
