import numpy as np
import pytest
from scipy.stats import binomtest

from moslora.judging.resampling import interval, resampled, shares


def test_draws_keep_the_expected_totals_and_multiply_judges_with_units():
    counts = np.random.default_rng(0).integers(0, 3, (3, 4, 6)).astype(float)
    drawn = resampled(counts, draws=20000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), counts.sum(axis=(1, 2)), rtol=0.02)
    one = np.zeros((1, 4, 6))
    one[0, 2, 3] = 1  # counts as often as its judge times its unit is drawn: products of two multinomial counts
    found = resampled(one, draws=20000, seed=2)[:, 0]
    assert {4.0, 6.0} <= {*found}
    assert found.var() == pytest.approx((1 + 3 / 4) * (1 + 5 / 6) - 1, rel=0.05)


def test_an_interval_is_wider_where_one_of_judges_and_pairs_is_few():
    draws = np.random.default_rng(3).normal(size=20000)
    low, high = interval(draws, fewest=1000)
    assert (low, high) == (pytest.approx(-1.96, abs=0.05), pytest.approx(1.96, abs=0.05))
    assert interval(draws, fewest=6)[1] == pytest.approx(2.57, abs=0.1)


def test_shares_lie_within_their_intervals_and_these_within_0_and_1():
    counts = np.random.default_rng(4).multinomial(1, [0.9, 0.08, 0.02], size=(4, 10)).transpose(2, 0, 1)
    for value, low, high in shares(counts):
        assert 0 <= low <= value <= high <= 1


def test_shares_of_judges_who_differ_have_wider_intervals_than_of_judges_who_do_not():
    alike, apart = np.zeros((2, 6, 40)), np.zeros((2, 6, 40))
    alike[0, :, ::2] = alike[1, :, 1::2] = 1  # each judge chooses the first answer in half of the units
    apart[0, :3] = apart[1, 3:] = 1  # three always do, three never
    widths = [found[0].high - found[0].low for found in (shares(alike), shares(apart))]
    assert widths[1] > 1.5 * widths[0]


def test_gaps_are_no_answers():
    counts = np.zeros((2, 3, 5))
    counts[0, 0, :] = 1
    counts[1, 1, :2] = 1  # the third judge answered nothing: draws of that judge alone give no share
    first, second = shares(counts)
    assert (first.value, second.value) == pytest.approx((5 / 7, 2 / 7))
    assert first.low >= 0


def test_what_nobody_or_everybody_answered_is_not_certain():
    counts = np.zeros((2, 5, 32))
    counts[0] = 1
    everybody, nobody = shares(counts)
    upper = binomtest(0, 32).proportion_ci(0.95, method="exact").high
    assert everybody == (1, pytest.approx(1 - upper), 1)
    assert nobody == (0, 0, pytest.approx(upper))
