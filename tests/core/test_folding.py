"""Folding and deltas against float64 formulas."""

import pytest
import torch

from moslora.core.folding import add_delta, fold_into_a, weight_delta


@pytest.fixture
def factors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) for shape in ((8, 24), (8, 8), (40, 8))]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_folding_the_mixer_keeps_the_update(factors, dtype, tolerance):
    a, mixer, b = (factor.to(dtype) for factor in factors)
    folded = fold_into_a(a, mixer)
    assert folded.dtype == dtype
    assert folded.shape == a.shape
    exact = b.double() @ mixer.double() @ a.double()
    error = (b.double() @ folded.double() - exact).norm() / exact.norm()
    assert error < tolerance


def test_folding_rounds_once(factors):
    a, mixer, _ = (factor.bfloat16() for factor in factors)
    assert torch.equal(fold_into_a(a, mixer), (mixer.float() @ a.float()).bfloat16())


def test_folding_keeps_the_shape_of_convolution_kernels(factors):
    _, mixer, _ = factors
    kernel = torch.randn(8, 3, 3, 5)
    expected = torch.einsum("rc,cihw->rihw", mixer, kernel)
    torch.testing.assert_close(fold_into_a(kernel, mixer), expected)


def test_delta_is_scaled_and_in_float32_or_wider(factors):
    a, mixer, b = factors
    torch.testing.assert_close(weight_delta(a, mixer, b, scale=2.0), 2 * b @ mixer @ a)
    torch.testing.assert_close(weight_delta(a, None, b, scale=2.0), 2 * b @ a)
    assert weight_delta(a.bfloat16(), mixer.bfloat16(), b.bfloat16(), scale=1.0).dtype == torch.float32
    assert weight_delta(a.double(), mixer.double(), b.double(), scale=1.0).dtype == torch.float64


def test_adding_a_delta_rounds_once_and_can_be_undone():
    weight, delta = torch.randn(6, 5), torch.randn(6, 5)
    torch.testing.assert_close(add_delta(add_delta(weight, delta), delta, sign=-1), weight)
    half = weight.bfloat16()
    assert torch.equal(add_delta(half, delta), (half.float() + delta).bfloat16())
