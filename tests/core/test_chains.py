"""Chains of mixers in the fused update: under autocast, and compiled for any number of tokens."""

import pytest
import torch

from moslora.core.lowrank import add_update
from moslora.core.mixers import compose


def chain(tokens, dtype=torch.float32, *, inputs=12, outputs=10, rank=4, depth=3):
    torch.manual_seed(0)
    shapes = (tokens, outputs), (tokens, inputs), (rank, inputs), (depth, rank, rank), (outputs, rank)
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("tokens", [40, 5, 1])  # folded into B, composed and applied, applied link by link
def test_links_are_composed_in_their_own_dtype_under_autocast(tokens):
    y, x, a, mixer, b = chain(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        updated = add_update(y.bfloat16(), x.bfloat16(), a, mixer, b, scale=1.5)
    exact = y + 1.5 * x @ a.T @ compose(mixer).T @ b.T
    assert updated.dtype == torch.bfloat16
    assert (updated - exact).norm() < 0.01 * exact.norm()
    updated.float().square().sum().backward()
    assert mixer.grad.dtype == torch.float32


def test_one_compiled_program_without_a_break_serves_any_number_of_tokens():
    torch.compiler.reset()

    def update(y, x, a, mixer, b):
        return add_update(y * 1, x, a, mixer, b, scale=1.5)

    compiled = torch.compile(update, backend="eager", fullgraph=True, dynamic=True)
    for tokens in (40, 30, 5):
        y, x, a, mixer, b = chain(tokens, torch.float64)
        torch.testing.assert_close(compiled(y, x, a, mixer, b), y + 1.5 * x @ a.T @ compose(mixer).T @ b.T)
