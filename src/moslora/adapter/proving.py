"""Proving an export by its tensors: what was written and loaded back, against the adapter's.

A fold and a merge are identities, so each number must be right to the rounding of the dtype it is stored in; outputs
(`verification`) only show that another program runs it. The right numbers are computed here in float64 from the stored
A, M and B, apart from the code that exports.

Shapes: R rank, I input features (times kernel size for convolutions), O output features.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn

from moslora.adapter.layers import MixerLayer, groups_of
from moslora.adapter.merging import dequantised, is_quantised
from moslora.adapter.strictness import PREFIX
from moslora.adapter.tensors import BLOCK, Comparison, TensorDrift, exact
from moslora.adapter.twin import base_of
from moslora.core.folding import ungrouped
from moslora.core.mixers import TuckerCore
from moslora.core.precision import wide_dtype

LOADED = "default"  # what PEFT calls the adapter it loads
MIXER_KEY = ".lora_mixer.weight"
A_KEYS = (".lora_A.weight", ".lora_embedding_A")


def saved_tensors(model: nn.Module, adapter_name: str) -> dict[str, torch.Tensor]:
    """What saving the adapter writes, under the names they have in a PeftModel."""
    prefix = "" if isinstance(model, PeftModel) else PREFIX
    tensors = get_peft_model_state_dict(model, model.state_dict(), adapter_name=adapter_name)
    return {prefix + key: tensor for key, tensor in tensors.items()}


def prove_fold(model: nn.Module, twin: PeftModel, *, adapter_name: str, written: Collection[str]) -> TensorDrift:
    """Compare an adapter with its fold as plain PEFT loaded it into `twin`; DriftError unless every tensor is right.

    `written` are the names in the file. The adapted layers, with A' = M·A, B, scales, biases and magnitudes, and all
    other tensors that the adapter saves must be there, and nothing else.
    """
    proof = Comparison("the folded adapter")
    ours, plain = lora_layers_of(base_of(model), adapter_name), lora_layers_of(base_of(twin), LOADED)
    proof.same_names(ours, plain)
    for name, layer in ours.items():
        compare_factors(proof, name, layer, plain[name], adapter_name=adapter_name)
    expected = {key: t for key, t in saved_tensors(model, adapter_name).items() if not key.endswith(MIXER_KEY)}
    loaded = saved_tensors(twin, LOADED)
    proof.same_names(expected, written)
    proof.same_names(expected, loaded)
    for key, tensor in expected.items():
        if not key.endswith(A_KEYS):  # compared above
            proof.check(key, tensor, loaded[key], path=(tensor.dtype, loaded[key].dtype))
    return proof.result()


def prove_merge(
    model: nn.Module, loaded: nn.Module, *, adapter_name: str, dtype: torch.dtype | None = None
) -> TensorDrift:
    """Compare a merged model, as it was loaded back, with W + delta in every adapted layer and W in all others.

    `dtype` is what the weights were stored in, by default each in the base's own. Raises DriftError unless every
    tensor is right.
    """
    proof = Comparison("the merged model")
    expected, found = dict(_merged_state(base_of(model), "", adapter_name)), loaded.state_dict()
    proof.same_names(expected, found)
    for name, tensor in expected.items():
        there = found[name]
        if isinstance(tensor, MixerLayer):
            compare = _compare_bias if name.endswith("bias") else _compare_merged
            compare(proof, name, tensor, there, adapter_name=adapter_name, dtype=dtype)
        else:
            stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            proof.check(name, tensor, there, path=(tensor.dtype, stored, there.dtype))
    return proof.result()


def prove_copy(expected: Mapping[str, torch.Tensor], loaded: nn.Module) -> TensorDrift:
    """Compare a model that was loaded back with the tensors that were written."""
    proof, found = Comparison("the merged model"), loaded.state_dict()
    proof.same_names(expected, found)
    for name, tensor in expected.items():
        proof.check(name, tensor, found[name], path=(tensor.dtype, found[name].dtype))
    return proof.result()


def lora_layers_of(model: nn.Module, adapter: str) -> dict[str, Any]:
    """The layers that carry an adapter, ours or PEFT's own, by name."""
    return {name: part for name, part in model.named_modules() if isinstance(part, LoraLayer) and adapter in part.r}


def _factors(layer: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The stored A and B of our layers and of PEFT's."""
    if adapter in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight


def _mixed(layer: Any, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """M·A in float64, and |M|·|A|, times the float32 rounding of so many sums: what computing it there may miss.

    Without a mixer they are those of A, for the product with B.
    """
    a, _ = _factors(layer, adapter)
    if adapter not in _mixers_of(layer):
        return exact(a), exact(a).abs() * (torch.finfo(wide_dtype(a)).eps * len(a))
    mixer = layer.lora_mixer[adapter]
    weight = exact(mixer.weight)
    eps = torch.finfo(wide_dtype(a, mixer.weight)).eps
    if isinstance(mixer, TuckerCore):
        core, flat = weight.squeeze(0), exact(a).flatten(1)
        formula = "pq...,qi->pi..."
        return torch.einsum(formula, core, flat), torch.einsum(formula, core.abs(), flat.abs() * eps * len(flat))
    right = exact(a).flatten(1)
    size = right.abs() * (eps * len(right) * len(weight))
    for link_RR in weight:
        right, size = link_RR @ right, link_RR.abs() @ size
    return right.view(a.shape), size.view(a.shape)


def compare_factors(
    proof: Comparison,
    name: str,
    layer: Any,
    plain: Any,
    *,
    adapter_name: str,
    loaded_name: str = LOADED,
    is_baked: bool = False,
) -> None:
    """A' against M·A, B against B, scale against scale; the product B·A' is noted.

    With `is_baked`, B is compared with scale·B and the scale with 1, and A' and B may be filled up with zeros to a
    higher rank.
    """
    a, b = _factors(layer, adapter_name)
    folded_a, folded_b = _factors(plain, loaded_name)
    mixers = _mixers_of(layer)
    proof.check_finite(name, a, b, *(mixer.weight for key, mixer in mixers.items() if key == adapter_name))
    right_a, slack = _mixed(layer, adapter_name)
    if adapter_name not in mixers:
        slack = torch.zeros_like(slack)  # A is passed on as it is
    right_b, scale, b_path = b, layer.scaling[adapter_name], (b.dtype, folded_b.dtype)
    if is_baked:
        right_b, scale, b_path = exact(b) * scale, 1.0, (torch.float64, *b_path)
        folded_a, folded_b = _without_zeros(proof, name, folded_a, folded_b, rank=len(a))
    proof.check(f"{name}: A", right_a, folded_a, path=(torch.float64, a.dtype, folded_a.dtype), slack=slack)
    proof.check(f"{name}: B", right_b, folded_b, path=b_path)
    if plain.scaling[loaded_name] != scale:
        proof.refuse(
            f"{name} is scaled by {plain.scaling[loaded_name]:g} instead of {scale:g}"
            " (undo set_scale and scale_layer first)"
        )
    groups = groups_of(layer)
    right_OR, folded_OR = (scale * exact(ungrouped(part, groups=groups)).flatten(1) for part in (right_b, folded_b))
    right_RI, folded_RI = right_a.flatten(1), exact(folded_a).flatten(1)
    for rows in _blocks(len(right_OR), right_RI.shape[1]):
        proof.note(name, right_OR[rows] @ right_RI, folded_OR[rows] @ folded_RI)


def _mixers_of(layer: Any) -> Mapping[str, Any]:
    """A layer's mixers by adapter; PEFT's own layers have none."""
    return getattr(layer, "lora_mixer", {})


def _without_zeros(
    proof: Comparison, name: str, a: torch.Tensor, b: torch.Tensor, *, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `rank` rows of A and columns of B, of which the others shall be zero."""
    if a[rank:].count_nonzero() or b[:, rank:].count_nonzero():
        proof.refuse(f"{name} has rank {len(a)} instead of {rank}")
    return a[:rank], b[:, :rank]


def _compare_merged(
    proof: Comparison, name: str, layer: Any, found: torch.Tensor, *, adapter_name: str, dtype: torch.dtype | None
) -> None:
    """The written weight against W + scale·B·M·A, or DoRA's m · (W + scale·B·M·A) / its norm, row by row."""
    base = layer.get_base_layer()
    weight = dequantised(base).weight if is_quantised(base) else base.weight
    a, b = _factors(layer, adapter_name)
    right_a, slack_a = _mixed(layer, adapter_name)
    right_RI, slack_RI = right_a.flatten(1), slack_a.flatten(1)
    scaled_OR = exact(b).flatten(1) * layer.scaling[adapter_name]
    weight_OI, found_OI = layer.as_matrix(weight.detach()), layer.as_matrix(found)
    eps = torch.finfo(wide_dtype(a, b)).eps
    path = (torch.float64, dtype or base.weight.dtype, found.dtype)
    magnitude = layer.lora_magnitude_vector[adapter_name].weight if layer.use_dora.get(adapter_name) else None
    for rows in _blocks(*weight_OI.shape):
        base_rows, b_rows = exact(weight_OI[rows]), scaled_OR[rows]
        right = base_rows + b_rows @ right_RI
        slack = 2 * (b_rows.abs() @ slack_RI + eps * base_rows.abs())
        if magnitude is not None:
            factor = exact(magnitude).flatten()[rows, None] / right.norm(dim=1, keepdim=True)
            right, slack = right * factor, (slack + eps * right.shape[1] ** 0.5 * right.abs()) * factor.abs()
        proof.check(name, right, found_OI[rows], path=path, slack=slack)
        proof.note(name, right, exact(found_OI[rows]))


def _compare_bias(
    proof: Comparison, name: str, layer: Any, found: torch.Tensor, *, adapter_name: str, dtype: torch.dtype | None
) -> None:
    """The written bias against the layer's plus scale · the adapter's (lora_bias)."""
    bias, added = layer.get_base_layer().bias, layer.lora_B[adapter_name].bias
    right = exact(bias) + exact(added) * layer.scaling[adapter_name]
    slack = 2 * torch.finfo(wide_dtype(bias, added)).eps * (exact(bias).abs() + right.abs())
    proof.check(name, right, found, path=(torch.float64, dtype or bias.dtype, found.dtype), slack=slack)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, BLOCK // columns)
    return (slice(start, start + step) for start in range(0, rows, step))


def _merged_state(module: Any, prefix: str, adapter: str) -> Iterator[tuple[str, torch.Tensor | MixerLayer]]:
    """The tensors of a merged model by name; in place of a weight that changes, its layer."""
    if isinstance(module, MixerLayer):
        base: Any = module.get_base_layer()
        changed = {f"{prefix}weight"} if adapter in module.r else set()
        changed |= {f"{prefix}bias"} if module.lora_bias.get(adapter) else set()
        for name, tensor in _merged_state(base, prefix, adapter):
            yield name, module if name in changed else tensor
    elif isinstance(module, ModulesToSaveWrapper):
        is_saved = adapter in module.modules_to_save
        chosen = module.modules_to_save[adapter] if is_saved else module.original_module
        yield from _merged_state(chosen, prefix, adapter)
    elif isinstance(module, TrainableTokensWrapper):
        tokens: Any = module.token_adapter
        trained = f"{prefix}weight" if adapter in tokens.token_indices else None
        for name, tensor in _merged_state(module.original_module, prefix, adapter):
            yield name, tokens.get_merged_weights([adapter]) if name == trained else tensor
    else:
        plain = dequantised(module) if is_quantised(module) else module
        own = {**plain._parameters, **plain._buffers}
        for key, tensor in own.items():
            if tensor is not None and key not in plain._non_persistent_buffers_set:
                yield f"{prefix}{key}", tensor.detach()
        for key, child in module.named_children():
            yield from _merged_state(child, f"{prefix}{key}.", adapter)
