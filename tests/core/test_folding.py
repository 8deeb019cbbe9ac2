"""Folding and deltas against float64 formulas."""

import pytest
import torch

from moslora.core.folding import add_low_rank, fold_into_a, is_finite, weight_delta


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_weight_with_an_update_keeps_its_dtype(dtype: torch.dtype):
    weight, a, b = torch.randn(4, 6, dtype=dtype), torch.randn(2, 6), torch.randn(4, 2)
    assert add_low_rank(weight, a, None, b, scale=2.0).dtype == dtype


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


def test_adding_the_update_rounds_once_and_can_be_undone(factors):
    a, mixer, b = factors
    weight = torch.randn(len(b), a.shape[1])
    merged = add_low_rank(weight, a, mixer, b, scale=2.0)
    torch.testing.assert_close(merged, weight + 2 * b @ mixer @ a)
    torch.testing.assert_close(add_low_rank(merged, a, mixer, b, scale=-2.0), weight)
    half = weight.bfloat16()
    exact = half.double() + 2 * b.double() @ mixer.double() @ a.double()
    wrong_by = (add_low_rank(half, a, mixer, b, scale=2.0).double() - exact).abs()
    assert (wrong_by <= (exact.bfloat16().double() - exact).abs() + 1e-5).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_wrong_number_makes_a_tensor_not_finite(wrong, dtype):
    tensor = torch.randn(50, 3).to(dtype)
    assert is_finite(tensor)
    assert is_finite(tensor[:0])
    tensor[17, 1] = wrong
    assert not is_finite(tensor)
