"""Comparing an exported model with its adapter on a probe batch, once its tensors are proved (`proving`).

A language model can be chaotic at single positions (the first tokens of a text above all): there, rounding to 16 bits
alone moves logits by half their size, in the adapter as in any copy of it. What counts is therefore the difference
that three quarters of the positions keep to: a mixer, a layer or a scale that is wrong moves them all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from moslora.adapter.tensors import TensorDrift
from moslora.adapter.twin import base_of
from moslora.core.precision import own_dtype
from moslora.errors import ConfigError, DriftError

# Allowed |difference| as a share of the largest |output|, for the coarsest dtype on the way.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 4e-2}
SHARE_OF_POSITIONS = 0.75
FOUR_BIT = ("Linear4bit", "LinearNF4", "LinearFP4")


@dataclass(frozen=True)
class Drift:
    """How far an exported model's outputs (logits) are from the adapter's on the probe batch, and how far its tensors.

    `difference` is what three quarters of the positions keep to, each with its largest |difference|; `max_difference`
    is the largest of all. `tensors` were compared first, and are within rounding (`moslora.adapter.proving`). Of logits
    over a vocabulary, `same_token` is the share of the `positions` at which the likeliest token is the same.
    """

    difference: float
    max_difference: float
    largest_output: float
    tolerance: float
    tensors: TensorDrift
    positions: int
    same_token: float | None

    @property
    def is_within(self) -> bool:
        """Whether the difference is a number not above the tolerance."""
        return self.difference <= self.tolerance

    def require(self, what: str) -> None:
        """Raise DriftError when the difference is above the tolerance."""
        if not self.is_within:
            raise DriftError(
                f"{what} differs from the adapter by {self.difference:.3g} (allowed: {self.tolerance:.3g}; at most"
                f" {self.max_difference:.3g}), so nothing was written: use a wider dtype, or accept the difference with"
                " allow_drift (--allow-drift)"
            )


def measure_drift(
    expected: torch.Tensor,
    actual: torch.Tensor,
    *,
    dtypes: Iterable[torch.dtype],
    tensors: TensorDrift,
    are_tokens: bool = False,
) -> Drift:
    """The difference of two outputs (..., features), and the one allowed for the coarsest of `dtypes`.

    `are_tokens` says that the features are the logits of a vocabulary.
    """
    largest = expected.abs().max().item()
    share = max(TOLERANCES.get(dtype, 1e-4) for dtype in dtypes)
    at_position = (expected - actual).abs().amax(-1).flatten()
    typical = torch.quantile(at_position, SHARE_OF_POSITIONS, interpolation="higher").item()
    same = _share_of_same_tokens(expected, actual) if are_tokens else None
    return Drift(typical, at_position.max().item(), largest, share * largest, tensors, len(at_position), same)


def _share_of_same_tokens(expected: torch.Tensor, actual: torch.Tensor) -> float:
    """The share of positions at which a token is among the likeliest of both: logits of 16 bits have ties."""
    likeliest = [logits == logits.amax(-1, keepdim=True) for logits in (expected, actual)]
    return (likeliest[0] & likeliest[1]).any(-1).float().mean().item()


def default_probe(model: nn.Module) -> dict[str, torch.Tensor]:
    """`token_probe` of a fixed batch of 2 × 24 token ids; ConfigError for a model that does not read tokens."""
    base = base_of(model)
    vocabulary = getattr(getattr(base, "config", None), "vocab_size", None)
    wanted = getattr(base, "main_input_name", "input_ids")
    if not isinstance(vocabulary, int) or wanted != "input_ids":
        lack = f"reads {wanted}" if wanted != "input_ids" else "has no vocab_size"
        raise ConfigError(f"{type(base).__name__} {lack}: give the inputs to compare on as probe")
    return token_probe(model, torch.randint(vocabulary, (2, 24), generator=torch.Generator().manual_seed(0)))


def token_probe(model: nn.Module, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arguments of a forward pass on token ids (rows, tokens), without padding.

    An encoder-decoder is also given them to decode. A classifier without a padding token takes one row at a time, so it
    gets the first.
    """
    config: Any = base_of(model).config
    is_classifier = type(base_of(model)).__name__.endswith("ForSequenceClassification")
    rows = ids[:1] if is_classifier and config.get_text_config().pad_token_id is None else ids
    probe = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    return probe | {"decoder_input_ids": rows.clone()} if getattr(config, "is_encoder_decoder", False) else probe


@torch.inference_mode()
def probe_output(model: nn.Module, probe: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The model's first output for the probe in evaluation mode, in float32 on the CPU; every module's mode is kept."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    try:
        model.eval()
        run = model.__dict__.get("_original_forward", model)  # what accelerate has put autocast around
        with own_dtype(device):
            output = run(**send_to_device(dict(probe), device))
    finally:
        for module, mode in modes.items():
            module.training = mode
    return (output if isinstance(output, torch.Tensor) else output[0]).float().cpu()


def coarsest_dtype(model: nn.Module) -> torch.dtype:
    """The floating dtype with the widest tolerance among a model's weights and what quantised layers compute in.

    bitsandbytes' 8-bit layers round activations too, which counts as bfloat16.
    """
    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.dtype in TOLERANCES}
    for module in model.modules():
        if type(module).__name__ in FOUR_BIT and getattr(module, "compute_dtype", None) in TOLERANCES:
            dtypes.add(module.compute_dtype)  # pyright: ignore[reportArgumentType]
        elif type(module).__name__ == "Linear8bitLt":
            dtypes.add(torch.bfloat16)
    return max(dtypes, key=TOLERANCES.__getitem__, default=torch.float32)
