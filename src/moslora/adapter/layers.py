"""PEFT's LoRA layers with a mixer between A and B: one class a layer kind.

Written against PEFT 0.21. A subclass (not a patched instance) keeps `get_delta_weight`, and with it every merge, SVD
and conversion in PEFT that asks for it, exact. The forward pass hangs on PEFT's variant hook.
"""

from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora import layer as lora
from peft.tuners.lora.layer import LoraLayer, LoraVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import transpose
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from moslora.adapter.variants import CONVOLUTIONS, MixerVariant, dora_variant
from moslora.core.folding import add_low_rank, weight_delta
from moslora.core.mixers import Mixer, TuckerCore
from moslora.errors import UnsupportedLayerError

if TYPE_CHECKING:  # PEFT's layers are modules too; at run time the class behind ours brings that

    class _Layer(nn.Module, LoraLayer): ...
else:
    _Layer = LoraLayer


class MixerLayer(_Layer):
    """What every layer with a mixer shares; stands before PEFT's own class in the bases."""

    adapter_layer_names = (*LoraLayer.adapter_layer_names, "lora_mixer")
    other_param_names = (*LoraLayer.other_param_names, "fused")
    lora_mixer: nn.ModuleDict

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int, config: Any, **kwargs: Any) -> None:
        """Add an adapter of rank `r` to this layer; the mixer is added by the variant once A and B exist."""
        if "lora_mixer" not in self._modules:
            self.lora_mixer = nn.ModuleDict()
            self.fused: dict[str, bool] = {}
        super().update_layer(adapter_name, r, lora_alpha, config, **kwargs)

    def resolve_lora_variant(self, *, config: Any, **kwargs: Any) -> LoraVariant | None:
        """The forward pass for a configuration: with a mixer, with a mixer and DoRA, or PEFT's own for plain LoRA."""
        if not hasattr(config, "mixer"):
            return super().resolve_lora_variant(config=config, **kwargs)
        return dora_variant(self) if config.use_dora else MixerVariant()

    def factors(self, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The stored A (R, ...) and B (O, R, ...) of an adapter."""
        layers: Any = self
        if adapter in layers.lora_embedding_A:
            return layers.lora_embedding_A[adapter], layers.lora_embedding_B[adapter]
        return layers.lora_A[adapter].weight, layers.lora_B[adapter].weight

    def mixer_matrix(self, adapter: str) -> torch.Tensor | None:
        """The adapter's mixer as one matrix (R, R), a Tucker core as (R, R, K...); None for an adapter without one."""
        mixer = self.lora_mixer[adapter] if adapter in self.lora_mixer else None
        return mixer.matrix() if isinstance(mixer, Mixer | TuckerCore) else None

    def _cast_input_dtype(self, x: Any, dtype: torch.dtype) -> Any:
        # PEFT casts x to the factors' dtype before it asks the variant, which casts what it needs itself.
        has_mixers_only = self.lora_A.keys() <= self.lora_mixer.keys()
        return x if has_mixers_only else super()._cast_input_dtype(x, dtype)

    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        """`scale · B·M·A` in the base weight's shape, in float32 or wider."""
        a, b = self.factors(adapter)
        delta_OI = weight_delta(a, self.mixer_matrix(adapter), b, scale=self.scaling[adapter])
        return self.shape_like_base(delta_OI)

    def weight_with(self, adapter: str, weight: torch.Tensor, *, sign: int = 1) -> torch.Tensor:
        """`weight ± delta` as a new tensor in the base layer's layout and weight's dtype, rounded once."""
        a, b = self.factors(adapter)
        weight_OI = self.as_matrix(weight.detach())
        merged_OI = add_low_rank(weight_OI, a, self.mixer_matrix(adapter), b, scale=sign * self.scaling[adapter])
        return self.shape_like_base(merged_OI).contiguous()

    def as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight in the base layer's layout as a matrix (O, I)."""
        return transpose(weight, getattr(self, "fan_in_fan_out", False))

    def shape_like_base(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        """A matrix (O, I) in the layout of the base weight."""
        return transpose(matrix_OI, getattr(self, "fan_in_fan_out", False))


class Linear(MixerLayer, lora.Linear):
    """`nn.Linear`, and GPT-2's `Conv1D` (weight stored transposed)."""


class _Conv(MixerLayer):
    def get_delta_weight(self, adapter: str) -> torch.Tensor:
        refuse_groups(self)
        return super().get_delta_weight(adapter)

    def weight_with(self, adapter: str, weight: torch.Tensor, *, sign: int = 1) -> torch.Tensor:
        refuse_groups(self)
        return super().weight_with(adapter, weight, sign=sign)

    def as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.flatten(1)

    def shape_like_base(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        base: Any = self.get_base_layer()
        return matrix_OI.view(base.weight.shape)


class Conv1d(_Conv, lora.Conv1d):
    """`nn.Conv1d` without dilation; the mixer acts on the R channels between the two convolutions."""


class Conv2d(_Conv, lora.Conv2d):
    """`nn.Conv2d` without dilation; the mixer acts on the R channels between the two convolutions."""


class Conv3d(_Conv, lora.Conv3d):
    """`nn.Conv3d` without dilation; the mixer acts on the R channels between the two convolutions."""


class Embedding(MixerLayer, lora.Embedding):
    """`nn.Embedding`; PEFT starts its A at zero and draws B."""

    def as_matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight (vocabulary, dimension) as (dimension, vocabulary)."""
        return weight.T

    def shape_like_base(self, matrix_OI: torch.Tensor) -> torch.Tensor:
        """A matrix (dimension, vocabulary) as (vocabulary, dimension)."""
        return matrix_OI.T

    def _mixed_batch_forward(
        self, x: torch.Tensor, *args: Any, adapter_names: list[str], **kwargs: Any
    ) -> torch.Tensor:
        # PEFT 0.21 computes mixed batches of embeddings without asking the variant.
        result = self.base_layer(x, *args, **kwargs)
        for adapter in set(adapter_names) & set(self.lora_embedding_A):
            rows = [row for row, name in enumerate(adapter_names) if name == adapter]
            variant = self.lora_variant.get(adapter, MixerVariant())
            result[rows] = variant.forward(self, adapter, x[rows], result[rows]).to(result.dtype)
        return result


def mixer_layers(model: nn.Module) -> dict[str, MixerLayer]:
    """The adapted layers of a model by module name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MixerLayer)}


def check_base_layer(name: str, layer: nn.Module) -> None:
    """Raise UnsupportedLayerError for a layer whose settings PEFT's LoRA layers do not reproduce."""
    reason = None
    if isinstance(layer, CONVOLUTIONS):
        reason = _lost_setting(layer)
    elif isinstance(layer, nn.Embedding):
        if layer.max_norm is not None:
            reason = f"max_norm={layer.max_norm} would rescale A at every lookup"
        elif layer.sparse:
            reason = "sparse gradients do not pass through the mixer"
    weight = getattr(layer, "weight", None)
    if _is_recomputed(layer):
        reason = (
            "its weight is recomputed at every forward pass (weight_norm, spectral_norm, pruning, parametrize),"
            " which would undo a merge"
        )
    elif reason is None and isinstance(weight, torch.Tensor) and not _is_plain(weight):
        reason = f"its weight is a {type(weight).__name__} of {weight.dtype}"
    if reason is not None:
        raise UnsupportedLayerError(
            f"{name} ({type(layer).__name__}) cannot carry a mixer: {reason}; leave it out of target_modules"
        )


def groups_of(layer: nn.Module) -> int:
    """The groups of the convolution that a layer adapts; 1 for every other kind."""
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    return base.groups if isinstance(base, CONVOLUTIONS) else 1


def refuse_groups(layer: nn.Module, *, name: str = "the layer") -> None:
    """Raise UnsupportedLayerError for a grouped convolution: its update is no weight of the base layer's shape."""
    if groups_of(layer) > 1:
        raise UnsupportedLayerError(
            f"{name} is a convolution with groups={groups_of(layer)}, which cannot be merged: A reads all channels, the"
            " weight those of one group; ship the adapter folded (moslora.save_folded)"
        )


def _lost_setting(layer: Any) -> str | None:
    """What PEFT 0.21 does not pass on to a convolution's A, if it makes a difference there."""
    if any(step != 1 and size != 1 for step, size in zip(layer.dilation, layer.kernel_size, strict=True)):
        return f"dilation={layer.dilation} is not carried over to A"
    is_padded = layer.padding != "valid" and any(size != 0 for size in layer.padding)
    if layer.padding_mode != "zeros" and is_padded:
        return f"padding_mode='{layer.padding_mode}' is not carried over to A"
    return None


def _is_recomputed(layer: nn.Module) -> bool:
    """Whether a hook or a parametrization makes the layer's weight or bias out of other parameters."""
    values = [getattr(layer, key, None) for key in ("weight", "bias")]
    is_derived = any(isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter) for value in values)
    return is_derived or is_parametrized(layer)


def _is_plain(weight: torch.Tensor) -> bool:
    if type(weight).__module__.startswith("bitsandbytes"):
        return True
    is_dense = type(weight) in (nn.Parameter, torch.Tensor) and type(weight.data) is torch.Tensor
    return is_dense and weight.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
