import numpy as np
import pytest
from scipy.optimize import minimize

from moslora.judging.analysis import analyse
from moslora.judging.davidson import SPREAD, fit, strengths
from moslora.judging.scores import all_scores
from tests.judging.simulated import drawn, judgement, study, written

PAIRS = [(0, 1), (0, 2), (1, 2)]


def expected_counts(strengths, ties, total=1e6):
    """What the model gives of so many judgements of each pair."""
    rows = []
    for first, second in PAIRS:
        p, q = np.exp(strengths[first]), np.exp(strengths[second])
        weights = np.array([p, ties * np.sqrt(p * q), q])
        rows.append(total * weights / weights.sum())
    return np.array(rows)


def test_the_fit_finds_the_strengths_that_made_the_counts():
    found, ties = fit(expected_counts([0.8, -0.1, -0.7], 1.5), PAIRS, methods=3)
    assert found == pytest.approx([0.8, -0.1, -0.7], abs=1e-4)
    assert ties == pytest.approx(1.5, abs=1e-4)


def test_two_methods_give_the_log_of_wins_over_losses():
    found, ties = fit(np.array([[6e6, 3e6, 2e6]]), [(0, 1)], methods=2)
    assert found[0] - found[1] == pytest.approx(np.log(3), abs=1e-4)
    assert ties == pytest.approx(3 / np.sqrt(12), abs=1e-4)


def test_the_fit_is_the_best_of_its_penalised_likelihood():
    counts = np.array([[7.0, 2, 1], [5, 0, 5], [2, 3, 4]])

    def loss(parameters):
        shares = expected_counts(parameters[:3], np.exp(parameters[3]), total=1)
        return -np.sum(counts * np.log(shares)) + np.sum(np.square(parameters)) / (2 * SPREAD**2)

    best = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 8000, "xatol": 1e-9, "fatol": 1e-12}).x
    found, ties = fit(counts, PAIRS, methods=3)
    assert found == pytest.approx(best[:3] - best[:3].mean(), abs=1e-3)
    assert np.log(ties) == pytest.approx(best[3], abs=1e-3)


def test_a_method_that_always_wins_and_no_ties_keep_finite_strengths():
    found, ties = fit(np.array([[30.0, 0, 0], [30, 0, 0], [10, 0, 20]]), PAIRS, methods=3)
    assert 3 < found[0] < 10
    assert found[2] > found[1]
    assert 0 < ties < 0.1


def three_methods(*, gains, judges=6, pairs=16):
    return [
        one
        for number, ((first, second), gain) in enumerate(zip(("ab", "ac", "bc"), gains, strict=True))
        for one in drawn(judges, pairs, gain=gain, seed=number, first=first, second=second, left=first)
    ]


def test_strengths_come_with_intervals_from_three_methods_on():
    found = analyse(study(three_methods(gains=(1.2, 2.0, 0.8)), methods=("a", "b", "c")), draws=50)
    (one,) = found.strengths
    a, b, c = one.strengths
    assert a.value > b.value > c.value
    assert sum(share.value for share in one.strengths) == pytest.approx(0)
    assert a.low < a.value < a.high
    assert a.low > c.high
    two = written({"ann": "wt", "ben": "wl"})
    assert analyse(study(two), draws=50).strengths == ()


def test_the_order_of_a_pair_does_not_matter():
    judgements = three_methods(gains=(1.2, 2.0, 0.8))
    scores = list(all_scores(study(judgements, methods=("a", "b", "c"))))
    turned = [one.turned() for one in scores]
    first, second = (strengths(found, ("a", "b", "c"), draws=20) for found in (scores, turned))
    assert [one.value for one in first.strengths] == pytest.approx([one.value for one in second.strengths])


def test_one_judge_gives_strengths_without_intervals():
    found = analyse(study(three_methods(gains=(1, 1, 0), judges=1), methods=("a", "b", "c")), draws=20)
    assert [(one.low, one.high) for one in found.strengths[0].strengths] == [(None, None)] * 3


def test_units_judged_for_some_methods_only_are_counted_where_they_are():
    judgements = [one for one in three_methods(gains=(1, 1, 0)) if one.first == "a" or int(one.pair[1:]) < 4]
    lone = [judgement("judge 0", "p99", "first", first="b", second="c", left="b")]
    found = analyse(study(judgements + lone, methods=("a", "b", "c")), draws=20)
    assert len(found.strengths[0].strengths) == 3
    assert found.findings[2].pairs == 5
