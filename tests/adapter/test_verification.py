"""What counts as the same output: what three quarters of the positions keep to."""

import pytest
import torch

from moslora.adapter.tensors import TensorDrift
from moslora.adapter.verification import Drift, measure_drift
from moslora.errors import DriftError


def outputs(differences: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two outputs of one row, whose positions differ by so much in one feature; the largest output is 10."""
    expected = torch.full((1, len(differences), 4), 10.0)
    actual = expected.clone()
    actual[0, :, 2] -= torch.tensor(differences)
    return expected, actual


def drift_of(differences: list[float], dtype: torch.dtype) -> Drift:
    return measure_drift(*outputs(differences), dtypes=[dtype], tensors=TensorDrift(0.0, 0, 0, "float32"))


def test_a_few_chaotic_positions_do_not_count_and_are_told() -> None:
    drift = drift_of([9.0, *[0.1] * 9], torch.bfloat16)
    assert drift.difference == pytest.approx(0.1, rel=1e-5)
    assert drift.max_difference == 9
    assert drift.tolerance == pytest.approx(0.4)
    drift.require("the folded adapter")


ALLOWED = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.4}


@pytest.mark.parametrize("dtype", ALLOWED)
def test_a_difference_in_a_third_of_the_positions_is_refused_in_every_dtype(dtype: torch.dtype) -> None:
    assert drift_of([0.99 * ALLOWED[dtype], 0.0, 0.0] * 4, dtype).is_within
    drift = drift_of([0.5, 0.0, 0.0] * 4, dtype)
    with pytest.raises(DriftError) as refused:
        drift.require("the folded adapter")
    assert str(refused.value) == (
        f"the folded adapter differs from the adapter by 0.5 (allowed: {ALLOWED[dtype]:.3g}; at most 0.5), so"
        " nothing was written: use a wider dtype, or accept the difference with allow_drift (--allow-drift)"
    )


def test_an_output_that_is_no_number_is_never_within() -> None:
    assert not drift_of([float("nan"), 0.0, 0.0, 0.0, 0.0], torch.bfloat16).is_within


def test_the_likeliest_token_counts_as_the_same_where_one_is_among_the_likeliest_of_both() -> None:
    expected = torch.tensor([[[1.0, 2, 0], [2, 2, 0], [0, 1, 3], [5, 4, 0]]])
    actual = torch.tensor([[[0.0, 9, 1], [1, 3, 0], [0, 3, 3], [4, 5, 0]]])
    known = {"dtypes": [torch.float32], "tensors": TensorDrift(0.0, 0, 0, "float32")}
    drift = measure_drift(expected, actual, are_tokens=True, **known)
    assert (drift.same_token, drift.positions) == (0.75, 4)
    assert measure_drift(expected, actual, **known).same_token is None
