"""The forward pass and the merges of a layer with a mixer, as PEFT 0.21 variants."""

import logging
from functools import cache
from typing import Any

import torch
from peft.tuners.lora import layer as lora
from peft.tuners.lora import variants as peft_variants
from peft.tuners.lora.layer import LoraVariant
from torch import nn
from torch.nn.modules.module import _has_any_global_hook as has_any_global_hook

from moslora.adapter.patterns import NO_MIXER
from moslora.adapter.presenting import folded_factors
from moslora.core.folding import fold_into_a
from moslora.core.lowrank import add_update
from moslora.core.mixers import Mixer, TuckerCore
from moslora.core.precision import autocast_dtype
from moslora.errors import UnsupportedLayerError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class MixerVariant(LoraVariant):
    """`y + scale · B·M·A·dropout(x)` for linear, convolution and embedding layers."""

    def supports_lora_conversion(self) -> bool:
        """No: PEFT's conversion does not see the mixer (`moslora.fold` is exact)."""
        return False

    @staticmethod
    def init(module: Any, adapter_name: str, config: Any = None, **kwargs: Any) -> None:
        """Add the adapter's mixer, on the device and in the dtype of A."""
        add_mixer(module, adapter_name, config)

    @staticmethod
    def merge_safe(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """The merged weight as a new tensor."""
        return module.weight_with(active_adapter, orig_weight)

    @staticmethod
    def merge_unsafe(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> None:
        """Merge into the weight's storage."""
        orig_weight.data.copy_(module.weight_with(active_adapter, orig_weight))

    @staticmethod
    def unmerge(module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:
        """The weight with the delta taken out again, to rounding."""
        return module.weight_with(active_adapter, orig_weight, sign=-1)

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The base layer's `result` plus the update."""
        scale = module.scaling[active_adapter]
        if active_adapter in module.lora_embedding_A:
            return result + _embedding_update(module, active_adapter, x) * scale
        if can_fuse(module, active_adapter):
            return _fused_update(module, active_adapter, x, result)
        x = module.lora_dropout[active_adapter](cast_to_factors(module, active_adapter, x))
        h = chained_a(module, active_adapter)(x)
        return torch.add(result, module.lora_B[active_adapter](h), alpha=scale)


class MixerDoraVariant(MixerVariant):
    """DoRA around the mixed update; everything but the chain A, M is PEFT's own DoRA for that layer kind."""

    def __init__(self, peft_variant: type[LoraVariant]) -> None:
        self.peft_variant = peft_variant

    def init(self, module: Any, adapter_name: str, config: Any, **kwargs: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Add the mixer, then the magnitude vector, which must see the mixed update."""
        add_mixer(module, adapter_name, config)
        with folded_factors(module, [adapter_name]):
            peft_init: Any = self.peft_variant.init
            peft_init(module, adapter_name=adapter_name, config=config, **kwargs)

    def merge_safe(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The merged weight as a new tensor."""
        return self.peft_variant.merge_safe(module, active_adapter, orig_weight)

    def merge_unsafe(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Merge into the weight."""
        self.peft_variant.merge_unsafe(module, active_adapter, orig_weight)

    def unmerge(self, module: Any, active_adapter: str, orig_weight: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The weight as before the merge, to rounding."""
        return self.peft_variant.unmerge(module, active_adapter, orig_weight)

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The base layer's `result` plus DoRA's update, with dropout as PEFT applies it."""
        x = cast_to_factors(module, active_adapter, x)
        dropout = module.lora_dropout[active_adapter]
        has_dropout = module.training and not isinstance(dropout, nn.Identity)
        update = module.lora_magnitude_vector[active_adapter](
            dropout(x),
            lora_A=chained_a(module, active_adapter),
            lora_B=module.lora_B[active_adapter],
            scaling=module.scaling[active_adapter],
            base_layer=module.get_base_layer(),
            base_result=None if has_dropout else result,
            adapter_name=active_adapter,
        )
        return result + update


class MixerDoraEmbeddingVariant(MixerDoraVariant):
    """DoRA on embeddings, whose factors PEFT's DoRA takes as tensors: the mixer is folded into the smaller one, B."""

    @staticmethod
    def forward(module: Any, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """The base layer's rows plus the update, each column scaled to its magnitude; PEFT knows no dropout here."""
        b_OR, mixer_RR = module.lora_embedding_B[active_adapter], module.mixer_matrix(active_adapter)
        if mixer_RR is not None:
            b_OR = (b_OR.to(mixer_RR.dtype) @ mixer_RR).to(b_OR.dtype)
        rescale, update = module.lora_magnitude_vector[active_adapter](
            x,
            lora_A=module.lora_embedding_A[active_adapter].T,
            lora_B=b_OR.T,
            scaling=module.scaling[active_adapter],
            base_layer=module.get_base_layer(),
            embed_fn=module._embed,
            adapter_name=active_adapter,
        )
        return rescale * result + _as_embedded(module, update)


def dora_variant(layer: Any) -> MixerDoraVariant:
    """DoRA for a layer kind; raises UnsupportedLayerError where PEFT's DoRA cannot take a mixer."""
    peft_variant = next((variant for kind, variant in _DORA.items() if isinstance(layer, kind)), None)
    if peft_variant is None and type(layer).__name__ == "Linear4bit":
        peft_variant = peft_variants.DoraLinearVariant
    if peft_variant is None:
        raise UnsupportedLayerError(
            f"use_dora=True does not work with a mixer on {type(layer).__name__} layers: leave them out of"
            " target_modules or set use_dora=False"
        )
    groups = getattr(layer.get_base_layer(), "groups", 1)
    if groups > 1:
        raise UnsupportedLayerError(
            f"use_dora=True does not work on a convolution with groups={groups}: its update is no weight of the base"
            " layer's shape, whose norm DoRA needs; leave it out of target_modules or set use_dora=False"
        )
    is_embedding = peft_variant is peft_variants.DoraEmbeddingVariant
    return (MixerDoraEmbeddingVariant if is_embedding else MixerDoraVariant)(peft_variant)


def add_mixer(module: Any, adapter_name: str, config: Any) -> None:
    """Draw the adapter's mixer in float32 on the CPU, then move it to where A is; none where `config.mixer` is that."""
    module.fused[adapter_name] = config.runtime_config.fused and config.mixer != NO_MIXER
    if config.mixer == NO_MIXER:
        return
    a, _ = module.factors(adapter_name)
    rank, base = module.r[adapter_name], module.get_base_layer()
    if config.use_tucker and isinstance(base, CONVOLUTIONS) and {*base.kernel_size} != {1}:
        mixer = TuckerCore(rank, base)
        options: dict[str, Any] = {"bias": False, "device": a.device, "dtype": a.dtype}
        module.lora_A[adapter_name] = type(base)(base.in_channels, rank, 1, **options)
    else:
        mixer = Mixer(rank, kind=config.mixer, depth=config.mixer_depth)
    if not a.is_meta:
        mixer.to(device=a.device, dtype=a.dtype)
    module.lora_mixer[adapter_name] = mixer
    if not config.mixer_trainable:
        frozen = dict(module.frozen_peft_weight_names)
        module.frozen_peft_weight_names = {**frozen, adapter_name: ("lora_mixer",)}


class chained_a:  # noqa: N801 - stands where PEFT expects the module lora_A
    """A followed by the mixer, if any: callable as PEFT calls `lora_A`, with the folded `weight` that DoRA reads."""

    def __init__(self, module: Any, adapter_name: str) -> None:
        self.lora_A = module.lora_A[adapter_name]
        self.mixer = module.lora_mixer[adapter_name] if adapter_name in module.lora_mixer else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """`M(A(x))`; a convolution has its channels before the positions, with or without a batch before them."""
        h = self.lora_A(x)
        return h if self.mixer is None else self.mixer(h, 1 - self.lora_A.weight.dim())

    @property
    def weight(self) -> torch.Tensor:
        """M·A, without gradient: DoRA takes norms of it, which it detaches."""
        a = self.lora_A.weight
        return a if self.mixer is None else fold_into_a(a, self.mixer.matrix())


def can_fuse(module: Any, adapter_name: str) -> bool:
    """Whether the update may read the factors directly instead of calling them.

    It may for linear layers whose factors are whole (not sharded) and do nothing but their product.
    """
    if not module.fused.get(adapter_name, False):
        return False
    a, mixer, b = (getattr(module, name)[adapter_name] for name in ("lora_A", "lora_mixer", "lora_B"))
    if isinstance(a, CONVOLUTIONS):
        return False
    rank = module.r[adapter_name]
    is_plain = (
        type(a) is type(b) is nn.Linear
        and type(mixer) is Mixer
        and b.bias is None
        and a.weight.shape == (rank, module.in_features)
        and b.weight.shape == (module.out_features, rank)
        and mixer.weight.shape[1:] == (rank, rank)
        and not has_any_global_hook()
        and not any(_is_hooked(part) for part in (a, mixer, b))
    )
    if not is_plain and not torch.compiler.is_compiling():
        _say_once(
            "an adapter's factors are sharded, hooked or have a bias: using the plain path instead of the fused one"
        )
    return is_plain


def _is_hooked(part: Any) -> bool:
    """Whether calling a factor does more than its class's forward pass: hooks, or a forward put in its place."""
    hooks = (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks)
    return any(hooks) or "forward" in part.__dict__


def cast_to_factors(module: Any, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
    """x in the dtype of A, as PEFT casts it, unless that is switched off."""
    dtype = module.factors(adapter_name)[0].dtype
    return x.to(dtype) if module.cast_input_dtype_enabled else x


def _fused_update(module: Any, adapter_name: str, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    dropout = module.lora_dropout[adapter_name]
    return add_update(
        result,
        _in_compute_dtype(module, adapter_name, x),
        module.lora_A[adapter_name].weight,
        module.lora_mixer[adapter_name].weight,
        module.lora_B[adapter_name].weight,
        scale=module.scaling[adapter_name],
        dropout=dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0,
    )


def _in_compute_dtype(module: Any, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
    """x in the dtype its products run in: autocast's where that is on (as torch does, never for float64), else its own.

    In float16 the channels would overflow above 65,504 and small gradients vanish, so it is widened as PEFT does.
    """
    autocast = autocast_dtype(x.device.type)
    if autocast is not None:
        return x if x.dtype == torch.float64 else x.to(autocast)
    return cast_to_factors(module, adapter_name, x) if x.dtype == torch.float16 else x


@cache
def _say_once(message: str) -> None:
    logging.getLogger("moslora").warning(message)


def _embedding_update(module: Any, adapter_name: str, x: torch.Tensor) -> torch.Tensor:
    h = module._embed(x, module.lora_embedding_A[adapter_name].T)
    if adapter_name in module.lora_mixer:
        h = module.lora_mixer[adapter_name](h)
    return _as_embedded(module, h @ module.lora_embedding_B[adapter_name].T)


def _as_embedded(module: Any, update: torch.Tensor) -> torch.Tensor:
    """The update times the factor by which the base layer multiplies its rows (Gemma's, Bart's), rounded as there."""
    base = module.get_base_layer()
    embed_scale = getattr(base, "embed_scale", 1)
    return update * (embed_scale.to(base.weight.dtype) if isinstance(embed_scale, torch.Tensor) else embed_scale)


_DORA: dict[type, type[LoraVariant]] = {
    lora.Linear: peft_variants.DoraLinearVariant,
    lora.Conv1d: peft_variants.DoraConv1dVariant,
    lora.Conv2d: peft_variants.DoraConv2dVariant,
    lora.Conv3d: peft_variants.DoraConv3dVariant,
    lora.Embedding: peft_variants.DoraEmbeddingVariant,
}
