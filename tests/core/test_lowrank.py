"""The fused update: exact gradients for every order, kind and dropout; what it may write into."""

import pytest
import torch
from torch.autograd import forward_ad

from moslora.core.dropping import draw_dropped, drop
from moslora.core.lowrank import add_update, contraction
from moslora.core.mixers import compose, draw_mixer_

SHAPES = {"into_a": (40, 6, 12), "into_b": (40, 12, 6), "unfolded": (5, 12, 10)}
KINDS = [("kaiming", 1), ("orthogonal", 1), ("butterfly", 1), ("normal", 3), (None, 0)]


def drawn(tokens, inputs, outputs, rank=4, kind="kaiming", depth=1):
    torch.manual_seed(0)
    make = dict(dtype=torch.float64)  # noqa: C408
    x, y = torch.randn(tokens, inputs, **make), torch.randn(tokens, outputs, **make)
    a, b = torch.randn(rank, inputs, **make), torch.randn(outputs, rank, **make)
    mixer = None
    if kind is not None:
        mixer = torch.empty(depth, rank, rank, **make)
        draw_mixer_(mixer, kind=kind)
    return [None if part is None else part.requires_grad_() for part in (y, x, a, mixer, b)]


def reference(y, x, a, mixer, b, scale):
    m = torch.eye(len(a), dtype=a.dtype) if mixer is None else compose(mixer)
    return y + scale * x @ a.T @ m.T @ b.T


@pytest.mark.parametrize("order", SHAPES)
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_outputs_and_gradients_are_exact(order, kind, depth):
    tokens, inputs, outputs = SHAPES[order]
    if kind is not None:
        assert contraction(tokens=tokens, inputs=inputs, outputs=outputs, rank=4, depth=depth) == order
    parts = drawn(tokens, inputs, outputs, kind=kind, depth=depth or 1)
    given = [part for part in parts if part is not None]

    def fused(y, x, a, *rest):
        mixer, b = rest if len(rest) == 2 else (None, rest[0])
        return add_update(y * 1, x, a, mixer, b, scale=1.5)

    torch.testing.assert_close(fused(*given), reference(*parts, 1.5))
    assert torch.autograd.gradcheck(fused, given)


def test_the_mask_of_the_forward_pass_is_that_of_the_backward_pass():
    y, x, a, mixer, b = drawn(40, 12, 10)
    torch.manual_seed(3)
    output = add_update(y * 1, x, a, mixer, b, scale=1.5, dropout=0.3)
    torch.manual_seed(3)
    expected = reference(y, drop(x, draw_dropped(x, 0.3)) / 0.7, a, mixer, b, 1.5)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    for one, two in zip(
        torch.autograd.grad((output * weights).sum(), (y, x, a, mixer, b)),
        torch.autograd.grad((expected * weights).sum(), (y, x, a, mixer, b)),
        strict=True,
    ):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("order", SHAPES)
def test_the_base_layers_product_can_be_passed_in_the_same_backward_pass(order, dropout):
    _, x, a, mixer, b = drawn(*SHAPES[order])
    base = torch.randn(len(b), a.shape[1], dtype=torch.float64)
    found = []
    for base_OI in (None, base):
        torch.manual_seed(3)
        y = (x.unsqueeze(0) @ base.T) * 1
        output = add_update(y, x.unsqueeze(0), a, mixer, b, scale=1.5, dropout=dropout, base_OI=base_OI)
        found.append([output, *torch.autograd.grad(output.sin().sum(), (x, a, mixer, b))])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def test_fewer_tokens_than_ranks_pass_through_a_chain_link_by_link():
    assert contraction(tokens=3, inputs=12, outputs=10, rank=4, depth=3) == "chained"
    parts = drawn(3, 12, 10, kind="normal", depth=3)
    torch.testing.assert_close(add_update(parts[0] * 1, *parts[1:], scale=1.5), reference(*parts, 1.5))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("order", SHAPES)
def test_pointwise_convolutions_are_exact_in_place_and_keep_their_layout(order, memory_format):
    tokens, inputs, outputs = SHAPES[order]
    y, x, a, mixer, b = drawn(tokens, inputs, outputs)

    def images(rows):
        return rows.T.reshape(1, rows.shape[1], 1, tokens).to(memory_format=memory_format)

    def convolved(y, x, a, mixer, b):
        return add_update(images(y) * 1, images(x), a, mixer, b, scale=1.5, channel_dim=1)

    expected = reference(y, x, a, mixer, b, 1.5)
    torch.testing.assert_close(convolved(y, x, a, mixer, b), images(expected))
    assert torch.autograd.gradcheck(convolved, (y, x, a, mixer, b))
    own = torch.randn(2, outputs, 3, 5, dtype=torch.float64).to(memory_format=memory_format)
    x = torch.randn(2, inputs, 3, 5, dtype=torch.float64).to(memory_format=memory_format)
    with torch.no_grad():
        updated = add_update(own, x, a, mixer, b, scale=1.0, dropout=0.5, channel_dim=1)
    assert updated.data_ptr() == own.data_ptr()
    assert updated.stride() == own.stride()


def test_dropping_everything_leaves_the_output_as_it_is():
    y, x, a, mixer, b = drawn(40, 12, 10)
    assert torch.equal(add_update(y * 1, x, a, mixer, b, scale=1.5, dropout=1.0), y)


def test_the_output_is_changed_in_place_only_where_autograd_allows_it():
    y, x, a, mixer, b = drawn(40, 12, 10)
    own = (y * 1).detach()
    assert add_update(own, x, a, mixer, b, scale=1.0).data_ptr() == own.data_ptr()
    leaf = y.detach().clone().requires_grad_()
    before = leaf.detach().clone()
    add_update(leaf, x, a, mixer, b, scale=1.0)
    assert torch.equal(leaf, before)
    stack = torch.randn(2, 40, 10, dtype=torch.float64)
    kept = stack.clone()
    add_update(stack[0], x, a, mixer, b, scale=1.0)
    assert torch.equal(stack, kept)
    with forward_ad.dual_level():
        assert (
            add_update(own, x.detach(), a.detach(), mixer.detach(), b.detach(), scale=1.0).data_ptr() != own.data_ptr()
        )


def test_differentiating_twice_is_an_error():
    y, x, a, mixer, b = drawn(40, 12, 10)
    (gradient,) = torch.autograd.grad(add_update(y * 1, x, a, mixer, b, scale=1.0).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_run_in_the_inputs_dtype_and_gradients_come_in_the_factors(dtype):
    y, x, a, mixer, b = (part.detach() for part in drawn(40, 12, 10))
    exact = reference(y, x, a, mixer, b, 1.5)
    a, mixer, b = (part.float().requires_grad_() for part in (a, mixer, b))
    x = x.to(dtype).requires_grad_()
    output = add_update(y.to(dtype), x, a, mixer, b, scale=1.5)
    assert output.dtype == dtype
    assert (output - exact).norm() < 0.02 * exact.norm()
    output.float().square().sum().backward()
    assert (x.grad.dtype, a.grad.dtype, mixer.grad.dtype, b.grad.dtype) == (dtype, *[torch.float32] * 3)
