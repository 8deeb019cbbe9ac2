"""What a model does to tokens that must not see each other, found out by changing one and looking at the other.

The inputs compared have one shape, so a model that looks at nothing else gives the same bits: there is no tolerance
in which a small leak could hide, nor one that rounding could exceed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from moslora.adapter.twin import accepts, base_of

CASTABLE = (None, "eager", "sdpa")  # attention that computes in any dtype
ROUNDING = 1e-9  # of the largest logit, in float64
Inputs = dict[str, Any]


def find_leak(model: nn.Module, first: Inputs, second: Inputs, *, at: slice, dtype: torch.dtype | None = None) -> float:
    """How much the logits of row 0 `at` some positions change between two inputs of one shape; 0 if not at all.

    Computed in `dtype`, or in the model's own. Mixtures of experts multiply as many rows together as an expert gets,
    and so round differently beside other tokens: where the bits differ, float64 tells rounding from sight.
    """
    with computing_in(model, dtype):
        before, after = (logits(model, inputs)[at] for inputs in (first, second))
    if torch.equal(before, after):
        return 0.0
    if not is_castable(model) or before.device.type == "mps":
        return _difference(before, after)
    with computing_in(model, torch.float64), _experts_one_by_one(model):
        before, after = (logits(model, inputs)[at] for inputs in (first, second))
    difference = _difference(before, after)
    return 0.0 if difference <= ROUNDING * max(1.0, before.abs().max().item()) else difference


def sees_left_padding(model: nn.Module) -> bool:
    """Whether what stands on the left of a row, masked, changes the row's logits.

    So it is with models that ignore the attention mask (RWKV), or that count positions from the padding.
    """
    ids, padding = [19, 23, 29, 31], 3
    with probing(model):
        rows = [left_padded_inputs(model, ids, padding=[fill] * padding) for fill in (5, 7)]
        if find_leak(model, *rows, at=slice(padding, None)):
            return True
        if accepts(model, "position_ids"):
            return False
        with computing_in(model, torch.float32):
            padded = logits(model, rows[0])[padding:]
            alone = logits(model, left_padded_inputs(model, ids, padding=[]))
        return _difference(padded, alone) > 1e-3 * max(1.0, alone.abs().max().item())


def left_padded_inputs(model: nn.Module, ids: Sequence[int], *, padding: Sequence[int]) -> Inputs:
    """One row with so much masked before it, as scoring and training give it to the model."""
    mask = torch.tensor([[0] * len(padding) + [1] * len(ids)])
    inputs: Inputs = {"input_ids": torch.tensor([[*padding, *ids]]), "attention_mask": mask}
    if accepts(model, "position_ids"):
        inputs["position_ids"] = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    if accepts(model, "use_cache"):
        inputs["use_cache"] = False
    return inputs


def logits(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The logits of row 0, of shape (positions, vocabulary); token ids are taken modulo the vocabulary."""
    base = base_of(model)
    embedding = base.get_input_embeddings().weight
    device = torch.device("cpu") if embedding.device.type == "meta" else embedding.device
    given = {name: value.to(device) if torch.is_tensor(value) else value for name, value in inputs.items()}
    return base(**given | {"input_ids": given["input_ids"] % embedding.shape[0]}).logits[0]


def is_castable(model: nn.Module) -> bool:
    """Whether the model computes in any dtype: not with quantised or offloaded weights, nor with flash attention."""
    attention = getattr(getattr(base_of(model), "config", None), "_attn_implementation", None)
    weights_are_plain = all(p.is_floating_point() and p.device.type != "meta" for p in model.parameters())
    return attention in CASTABLE and weights_are_plain


@contextmanager
def probing(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it had.

    8-bit layers choose columns of outliers by all rows together, which is no sight of each other's tokens: none inside.
    """
    modes = {module: module.training for module in model.modules()}
    found: list[Any] = [getattr(module, "state", None) for module in modes]
    states = [state for state in found if hasattr(state, "threshold")]
    thresholds = [state.threshold for state in states]
    model.eval()
    for state in states:
        state.threshold = 0.0
    try:
        with torch.no_grad():
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training
        for state, threshold in zip(states, thresholds, strict=True):
            state.threshold = threshold


@contextmanager
def computing_in(model: nn.Module, dtype: torch.dtype | None) -> Iterator[None]:
    """The model computes in another dtype inside, if it can. One layer at a time is cast: no second model is held."""
    if dtype is None or not is_castable(model):
        yield
        return
    layers = [layer for stack in _stacks(model) for layer in stack]
    in_layers = {tensor for layer in layers for tensor in _tensors(layer)}
    around = {tensor: tensor.data for tensor in _tensors(model) if tensor not in in_layers}
    own: dict[nn.Module, dict[torch.Tensor, torch.Tensor]] = {}

    def enter(layer: nn.Module, _inputs: object) -> None:
        own[layer] = {tensor: tensor.data for tensor in _tensors(layer)}
        _cast(own[layer], dtype)

    def leave(layer: nn.Module, _inputs: object, _output: object) -> None:
        _restore(own.pop(layer, {}))

    handles = [layer.register_forward_pre_hook(enter, prepend=True) for layer in layers]
    handles += [layer.register_forward_hook(leave, always_call=True) for layer in layers]
    try:
        _cast(around, dtype)
        yield
    finally:
        for handle in handles:
            handle.remove()
        for held in (around, *own.values()):
            _restore(held)


@contextmanager
def _experts_one_by_one(model: nn.Module) -> Iterator[None]:
    """A mixture's experts as plain products inside, which any dtype has."""
    base = base_of(model)
    former = base.get_experts_implementation() if hasattr(base, "get_experts_implementation") else {}
    if all(name in (None, "eager") for name in former.values()):
        yield
        return
    base.set_experts_implementation("eager")
    try:
        yield
    finally:
        base.set_experts_implementation(former)


def _difference(before: torch.Tensor, after: torch.Tensor) -> float:
    return (after.double() - before.double()).abs().max().item()


def _stacks(module: nn.Module) -> Iterator[nn.ModuleList]:
    """The outermost lists of modules: a transformer's layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _stacks(child)


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    tensors = [*module.parameters(), *module.buffers()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]


def _cast(held: dict[torch.Tensor, torch.Tensor], dtype: torch.dtype) -> None:
    for tensor, data in held.items():
        tensor.data = data.to(dtype)


def _restore(held: dict[torch.Tensor, torch.Tensor]) -> None:
    for tensor, data in held.items():
        tensor.data = data
