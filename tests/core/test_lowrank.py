"""The update of a linear layer: exact outputs and derivatives, for every order; nobody's tensor changes."""

import copy
from functools import partial

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from moslora.core.dropping import draw_positions, drop, drop_by_mask
from moslora.core.lowrank import _AddUpdate, add_update, contraction
from moslora.core.mixers import compose, draw_mixer_

pytestmark = pytest.mark.filterwarnings(r"ignore:.torch\.jit\.:DeprecationWarning")  # torch's own forward mode uses it

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


@pytest.fixture
def fused_calls(monkeypatch):
    """How often the autograd function of our own was used."""
    calls, apply = [], _AddUpdate.apply
    monkeypatch.setattr(_AddUpdate, "apply", lambda *inputs: (calls.append(1), apply(*inputs))[1])
    return calls


@pytest.mark.parametrize("order", SHAPES)
@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_outputs_and_first_and_second_derivatives_are_exact(order, kind, depth, fused_calls):
    tokens, inputs, outputs = SHAPES[order]
    if kind is not None:
        assert contraction(tokens=tokens, inputs=inputs, outputs=outputs, rank=4, depth=depth) == order
    parts = drawn(tokens, inputs, outputs, kind=kind, depth=depth or 1)
    given = [part for part in parts if part is not None]

    def fused(y, x, a, *rest):
        mixer, b = rest if len(rest) == 2 else (None, rest[0])
        return add_update(y, x, a, mixer, b, scale=1.5)

    torch.testing.assert_close(fused(*given), reference(*parts, 1.5))
    assert torch.autograd.gradcheck(fused, given)
    assert torch.autograd.gradgradcheck(fused, given, fast_mode=True)
    assert fused_calls


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("order", SHAPES)
def test_the_mask_of_the_forward_pass_is_that_of_every_backward_pass(order, on_gpu, monkeypatch):
    y, x, a, mixer, b = parts = drawn(*SHAPES[order])
    if on_gpu:
        monkeypatch.setattr("moslora.core.lowrank.drop_some", drop_by_mask)
    torch.manual_seed(3)
    output = add_update(y, x, a, mixer, b, scale=1.5, dropout=0.3)
    torch.manual_seed(3)
    kept = torch.native_dropout(x, 0.3, train=True)[1] if on_gpu else draw_positions(x.numel(), 0.3)
    expected = reference(y, drop(x, kept) / 0.7, a, mixer, b, 1.5)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(output)
    firsts = [torch.autograd.grad((o * weights).sum(), parts, create_graph=True) for o in (output, expected)]
    penalties = [sum(part.square().sum() for part in first) for first in firsts]
    seconds = [torch.autograd.grad(penalty, (x, a, mixer, b)) for penalty in penalties]
    for found in (firsts, seconds):
        for one, two in zip(*found, strict=True):
            torch.testing.assert_close(one, two)


def test_fewer_tokens_than_ranks_pass_through_a_chain_link_by_link():
    assert contraction(tokens=3, inputs=12, outputs=10, rank=4, depth=3) == "chained"
    parts = drawn(3, 12, 10, kind="normal", depth=3)
    torch.testing.assert_close(add_update(*parts, scale=1.5), reference(*parts, 1.5))


@pytest.mark.parametrize("on_gpu", [False, True])
def test_dropping_everything_leaves_the_output_as_it_is(on_gpu, monkeypatch):
    y, x, a, mixer, b = drawn(40, 12, 10)
    if on_gpu:
        monkeypatch.setattr("moslora.core.lowrank.drop_some", drop_by_mask)
    assert torch.equal(add_update(y, x, a, mixer, b, scale=1.5, dropout=1.0), y)


@pytest.mark.parametrize("shape", [(40,), (8, 5), (2, 4, 5)])
def test_no_input_is_changed_and_the_output_belongs_to_the_caller(shape):
    y, x, a, mixer, b = parts = drawn(40, 12, 10)
    before = copy.deepcopy(parts)
    output = add_update(y.view(*shape, 10), x.view(*shape, 12), a, mixer, b, scale=1.0, dropout=0.5)
    output.square().sum().backward()
    assert all(torch.equal(one, two) for one, two in zip(parts, before, strict=True))
    changed = add_update(y.view(*shape, 10), x.view(*shape, 12), a, mixer, b, scale=1.0).mul_(2)
    torch.testing.assert_close(changed, 2 * reference(*parts, 1.0).view(*shape, 10))
    changed.sum().backward()  # autograd allows the caller to write into it


def test_the_graph_can_be_walked_twice():
    y, x, a, mixer, b = drawn(40, 12, 10)
    output = add_update(y, x, a, mixer, b, scale=1.0)
    one, two = (torch.autograd.grad(output.sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(one, two)


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


def test_a_wider_input_keeps_its_precision_until_the_sum_is_rounded():
    y, x, a, mixer, b = (part.detach().float() for part in drawn(40, 12, 10))
    output = add_update(y.to(torch.bfloat16), x, a, mixer, b, scale=1.5)
    assert torch.equal(output, reference(y.to(torch.bfloat16).float(), x, a, mixer, b, 1.5).to(torch.bfloat16))


@pytest.mark.parametrize(("order", "folded"), [("into_a", "a"), ("into_b", "b")])
def test_the_mixer_is_folded_in_its_own_dtype_under_autocast(order, folded):
    y, x, a, mixer, b = (part.detach().float() for part in drawn(*SHAPES[order]))
    mixer = torch.full_like(mixer, 1 + 2**-12)  # bfloat16 would make it 1
    seen = {}

    def spy(*inputs):
        seen["a"], seen["b"] = inputs[2], inputs[4]
        return apply(*inputs)

    apply = _AddUpdate.apply
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
        patch.setattr(_AddUpdate, "apply", spy)
        add_update(y, x, a, mixer, b, scale=1.0)
    expected = {"a": mixer[0] @ a, "b": b @ mixer[0]}
    assert torch.equal(seen[folded], expected[folded])


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_autocast_in_one_pass_only_changes_nothing(place):
    found = []
    for is_on in (True, False):
        parts = [part.detach().float().requires_grad_() for part in drawn(40, 12, 10)]
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on and place == "forward"):
            output = add_update(*parts, scale=1.0)
        loss = output.square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on and place == "backward"):
            found.append([output, *torch.autograd.grad(loss, parts)])
    allowed = 0.01 if place == "backward" else 0.0  # the fold is autograd's own, which runs in autocast's dtype
    for one, two in zip(*found, strict=True):
        assert (one - two).norm() <= allowed * two.norm()


# What rewrites or watches single operations.


def test_forward_mode_gives_the_exact_derivative(fused_calls):
    y, x, a, mixer, b = (part.detach() for part in drawn(40, 12, 10))
    tangents = [torch.randn_like(part) for part in (y, x, a, mixer, b)]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip((y, x, a, mixer, b), tangents, strict=True)]
        found = forward_ad.unpack_dual(add_update(*duals, scale=1.5)).tangent
        expected = forward_ad.unpack_dual(reference(*duals, 1.5)).tangent
        torch.testing.assert_close(found, expected)
        assert not fused_calls
        add_update(y, x, a, mixer, b, scale=1.5)  # without a tangent nothing needs the plain way
    assert fused_calls


def test_transforms_of_torch_func():
    y, x, a, mixer, b = (part.detach() for part in drawn(40, 12, 10))

    def loss(run, row_y, row_x, a, mixer, b):
        return run(row_y[None], row_x[None], a, mixer, b, scale=1.5).square().sum()

    for transform in (
        lambda run: vmap(grad(partial(loss, run), (1, 2, 3, 4)), (0, 0, None, None, None))(y, x, a, mixer, b),
        lambda run: jvp(partial(loss, run), (y[0], x[0], a, mixer, b), (y[1], x[1], a, mixer, b)),
    ):
        found = transform(add_update)
        expected = transform(lambda *parts, scale: reference(*parts, scale))
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two)


def test_selective_checkpointing_keeps_products():
    y, x, a, mixer, b = drawn(40, 12, 10)
    context = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default, torch.ops.aten.addmm.default])
    output = checkpoint(partial(add_update, scale=1.5), y, x, a, mixer, b, use_reentrant=False, context_fn=context)
    found = torch.autograd.grad(output.square().sum(), (y, x, a, mixer, b))
    expected = torch.autograd.grad(reference(y, x, a, mixer, b, 1.5).square().sum(), (y, x, a, mixer, b))
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_repeats_the_dropout(reentrant):
    y, x, a, mixer, b = parts = drawn(40, 12, 10)
    found = []
    for run in (partial(checkpoint, use_reentrant=reentrant), lambda function, *inputs: function(*inputs)):
        torch.manual_seed(3)
        output = run(partial(add_update, scale=1.5, dropout=0.4), y, x, a, mixer, b)
        found.append(torch.autograd.grad(output.square().sum(), parts) if not reentrant else backward(output, parts))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)


def backward(output, parts):
    for part in parts:
        part.grad = None
    output.square().sum().backward()
    return [part.grad for part in parts]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the order of products is chosen by sizes
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_compiled_and_traced_the_formula_and_its_dropout_stay(dropout):
    parts = [part.detach() for part in drawn(40, 12, 10)]
    run = partial(add_update, scale=1.5, dropout=dropout)
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    traced = make_fx(run)(*parts)
    for program in (compiled, traced):
        for seed in (1, 2):
            torch.manual_seed(seed)
            found = program(*parts)
            torch.manual_seed(seed)
            x = torch.nn.functional.dropout(parts[1], dropout)
            torch.testing.assert_close(found, reference(parts[0], x, *parts[2:], 1.5))
    if not dropout:
        scripted = torch.jit.trace(lambda *inputs: run(*inputs), tuple(parts), check_trace=False)
        torch.testing.assert_close(scripted(*parts), reference(*parts, 1.5))


def test_the_meta_device_gives_the_shape():
    parts = [part.detach().to("meta") for part in drawn(40, 12, 10)]
    output = add_update(*parts, scale=1.5, dropout=0.5)
    assert output.is_meta
    assert output.shape == (40, 10)
