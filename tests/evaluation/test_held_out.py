import math

import numpy as np
import pytest

from moslora.errors import DataError
from moslora.evaluation.held_out import mean_loss
from moslora.evaluation.scores import perplexity


def test_the_mean_is_over_tokens_not_samples():
    assert mean_loss([1.0, 4.0], [30, 10]).loss == pytest.approx(1.75)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, hits, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        tokens = rng.integers(5, 50, 40)
        found = mean_loss(list(2 + rng.normal(0, 0.5, 40)), [int(count) for count in tokens])
        assert found.low is not None
        assert found.high is not None
        hits += found.low < 2 < found.high
    assert 0.92 <= hits / trials <= 0.98


def test_samples_of_one_group_count_once():
    losses = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    alone, grouped = mean_loss(losses, [4] * 6), mean_loss(losses, [4] * 6, ["a", "a", "b", "b", "c", "c"])
    assert alone.loss == grouped.loss == 2
    assert (alone.high or 0) < (grouped.high or 0)


def test_one_sample_has_no_interval_and_none_no_loss():
    assert mean_loss([2.5], [3]) == (2.5, None, None)
    with pytest.raises(DataError, match="give at least one"):
        mean_loss([], [])


def test_perplexity_is_the_exponential_and_infinite_where_that_is_no_number():
    assert perplexity(math.log(7)) == pytest.approx(7)
    assert perplexity(1e4) == math.inf
