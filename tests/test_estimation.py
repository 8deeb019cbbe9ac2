import numpy as np
import pytest
from scipy import stats

from moslora.estimation import estimate, holm, lower_bound, p_of_no_difference, table, variance_of


def without_question_effects(seed_means, questions=60):
    """Seeds × questions of -1, 0, 1: every question is favoured about as often, so only seeds differ."""
    values = np.zeros((len(seed_means), questions))
    start = 0
    for row, count in zip(values, seed_means, strict=True):
        row[(start + np.arange(abs(count))) % questions] = np.sign(count)
        start += abs(count)
    return values


def test_without_question_effects_it_is_the_paired_t_test_of_the_seeds_means():
    values = without_question_effects([9, 4, 12, -3, 6])
    means = values.mean(axis=1)
    expected = stats.ttest_rel(means + 0.5, np.full(5, 0.5))
    found = estimate([table(values)])
    assert found.mean == pytest.approx(means.mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_question_effects_by_hand():
    # Seeds' means 1/4 and 0: the variance of their mean is 1/64. Squares: total 6.875 = questions 6.375 (3 degrees of
    # freedom, so 2.125) + seeds 0.125 + rest 0.375 (3 degrees, so 0.125): questions add (2.125 - 0.125) / 8.
    weights = np.array([1 / 64, 1 / 4])
    half = weights @ stats.t.ppf(0.975, [1, 3]) / np.sqrt(weights.sum())
    found = estimate([table(np.array([[1.0, 1, -1, 0], [1, 1, -1, -1]]))])
    assert found.mean == 0.125
    assert (found.low, found.high) == pytest.approx((0.125 - half, 0.125 + half))
    assert weights @ stats.t.isf(found.p_value / 2, [1, 3]) / np.sqrt(weights.sum()) == pytest.approx(0.125)


def test_the_floor_by_hand():
    # Both seeds' means are 1/2. Squares: questions 2 (7 degrees of freedom), rest 2 (7 degrees): questions add nothing
    # to (2/7) / 16, which has (2 - 1)(8 - 1) degrees of freedom.
    values = np.array([[1.0, 1, 0, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0]])
    half = stats.t.ppf(0.975, 7) * (1 / 56) ** 0.5
    assert estimate([table(values)])[:3] == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert lower_bound([table(values)]) == pytest.approx(0.5 - half)
    assert p_of_no_difference([table(values)]) == pytest.approx(2 * stats.t.sf(0.5 * 56**0.5, 7))


def test_one_repetition_is_the_t_test_over_questions():
    values = np.random.default_rng(0).normal(0.2, 1, 40)
    expected = stats.ttest_1samp(values, 0)
    assert p_of_no_difference([table(values[None])]) == pytest.approx(expected.pvalue)
    assert lower_bound([table(values[None])]) == pytest.approx(expected.confidence_interval(0.95).low)


def test_the_same_questions_favouring_a_method_in_every_seed_do_not_make_it_certain():
    favoured = np.repeat([1, -1, 0], [12, 8, 80])  # 12 questions favour one method, 8 the other, whatever the seed
    values = np.array([favoured, favoured, favoured])
    values[0, 0] = 0  # else the seeds' means would not vary at all
    assert stats.ttest_1samp(values.mean(axis=1), 0).pvalue < 0.05
    assert estimate([table(values)]).p_value > 0.3


def test_means_that_lie_close_together_by_luck_do_not_make_it_certain():
    generator = np.random.default_rng(3)
    one = np.repeat([1, -1, 0], [12, 8, 80])  # in every seed 12 questions favour one method, 8 the other
    values = np.stack([generator.permutation(one) for _ in range(3)])
    values[0, np.flatnonzero(values[0] == 1)[0]] = 0  # else the seeds' means would not vary at all
    assert stats.ttest_1samp(values.mean(axis=1), 0).pvalue < 0.05
    found = estimate([table(values)])
    assert found.p_value > 0.1
    assert found.high - found.low > 0.1


def test_two_means_that_lie_close_together_are_worth_their_floor_and_not_13_times_it():
    generator = np.random.default_rng(3)
    one = np.repeat([1, 0], [20, 80])
    found = estimate([table(np.stack([generator.permutation(one) for _ in range(2)]))])
    assert found.high - found.low < 0.25
    assert found.low > 0


def test_interval_and_p_value_agree_on_what_is_shown():
    generator = np.random.default_rng(1)
    shown = 0
    for _ in range(200):
        found = estimate([table(generator.choice([-1, 0, 1], size=(3, 30), p=[0.1, 0.7, 0.2]))])
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
        shown += found.p_value < 0.05
    assert 0 < shown < 200


def test_identical_answers_show_nothing_within_what_one_question_is_worth():
    found = estimate([table(np.zeros((3, 200)))])
    assert (found.mean, found.p_value) == (0, 1)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 199) / 200)


def test_a_difference_on_every_question_is_shown_although_nothing_varies():
    found = estimate([table(np.ones((3, 50)))])
    assert found.mean == 1
    assert 0 < found.p_value < 1e-6


def test_the_average_counts_every_task_alike():
    big, small = np.zeros((3, 400)), without_question_effects([5, 6, 7], questions=50)
    assert estimate([table(big), table(small)]).mean == pytest.approx(0.06)


def test_questions_asked_four_times_are_worth_one():
    values = np.random.default_rng(2).choice([-1, 0, 1], size=(3, 30))
    groups = np.repeat(np.arange(30), 4)
    assert estimate([table(np.repeat(values, 4, axis=1), groups)]) == pytest.approx(estimate([table(values)]))
    order = np.random.default_rng(3).permutation(120)
    shuffled = table(np.repeat(values, 4, axis=1)[:, order], groups[order])
    assert estimate([shuffled]) == pytest.approx(estimate([table(values)]))


def test_groups_of_different_sizes_keep_every_seeds_mean():
    values = np.random.default_rng(4).random((3, 10))
    grouped = table(values, ["a"] * 7 + ["b", "c", "c"]).values
    assert grouped.shape == (3, 3)
    np.testing.assert_allclose(grouped.mean(axis=1), values.mean(axis=1))


def test_an_interval_holds_the_truth_where_questions_come_in_groups():
    draw = np.random.default_rng(5)
    groups, held = np.repeat(np.arange(50), 4), 0
    for _ in range(500):
        of_groups, of_seeds = np.repeat(draw.normal(0, 1, 50), 4), draw.normal(0, 0.1, (3, 1))
        found = estimate([table(of_groups + of_seeds + draw.normal(0, 1, (3, 200)), groups)])
        held += found.low <= 0 <= found.high
    assert held >= 465


def test_weights_give_the_weighted_mean_of_every_repetition():
    draw = np.random.default_rng(6)
    values, weights = draw.random((3, 40)), draw.uniform(0.1, 5, 40)
    expected = np.average(values, axis=1, weights=weights)
    np.testing.assert_allclose(table(values, weights=weights).values.mean(axis=1), expected)
    groups = np.repeat(np.arange(10), 4)
    np.testing.assert_allclose(table(values, groups, weights=weights).values.mean(axis=1), expected)


def test_equal_weights_change_nothing_whatever_their_sum():
    values = np.random.default_rng(7).choice([-1, 0, 1], size=(3, 40))
    groups = np.repeat(np.arange(10), 4)
    for given in (None, groups):
        weighted = table(values, given, weights=np.full(40, 0.01))
        assert estimate([weighted]) == pytest.approx(estimate([table(values, given)]))
        assert weighted.worth == pytest.approx(table(values, given).worth)


def test_the_error_of_one_repetition_is_that_of_the_linearised_weighted_mean():
    draw = np.random.default_rng(8)
    values, weights = draw.random(30) - 0.3, draw.uniform(0.1, 5, 30)
    shares = weights / weights.sum()
    mean = shares @ values
    error = (np.sum((shares * (values - mean)) ** 2) * 30 / 29) ** 0.5
    units = np.sum(shares**2) ** 2 / np.sum(shares**4)
    assert p_of_no_difference([table(values[None], weights=weights)]) == pytest.approx(
        2 * stats.t.sf(mean / error, units - 1)
    )


def test_a_question_that_outweighs_all_others_leaves_hardly_a_degree_of_freedom():
    weights = np.array([1000.0, *[1.0] * 29])
    assert table(np.zeros((2, 30)), weights=weights).units == pytest.approx(1, abs=1e-3)
    assert table(np.zeros((2, 30)), weights=np.ones(30)).units == 30


def test_a_repetition_that_is_better_on_every_question_is_no_disagreement_on_them():
    shifted = np.zeros((3, 40)) + np.array([[0.1], [0.2], [0.4]])
    weights = np.random.default_rng(9).uniform(0.1, 5, 40)
    np.testing.assert_allclose(table(shifted, weights=weights).values, shifted)


def test_identical_credits_show_nothing_within_the_least_step_of_one_question():
    assert estimate([table(np.zeros((3, 200)), answer=0.25)]).high == pytest.approx(stats.t.ppf(0.975, 199) / 800)
    steps, weights = np.array([1.0, 0.25]), np.array([3.0, 1.0])
    assert table(np.zeros((3, 2)), answer=steps, weights=weights).worth == pytest.approx(
        np.mean([(3 / 4 * 1) ** 2, (1 / 4 * 0.25) ** 2]) ** 0.5
    )


@pytest.mark.parametrize("is_grouped", [False, True])
def test_an_interval_holds_the_truth_where_questions_are_worth_parts_and_weights(is_grouped):
    """Pictures of two questions each, in subtasks of 20 to 150 that count alike; subtasks differ, seeds too."""
    draw, held = np.random.default_rng(10), 0
    sizes = np.array([20, 20, 30, 30, 150])
    subtask, weights = np.repeat(np.arange(5), sizes), np.repeat(1 / sizes, sizes)
    groups = np.arange(250) // 2 if is_grouped else None
    levels, gap = np.array([0.9, 0.5, 0.7, 0.8, 0.6])[subtask], 0.0
    for _ in range(300):
        of_pictures = draw.normal(0, 0.1, (2, 1, 125 if is_grouped else 250, 1))
        of_pictures = np.repeat(of_pictures, 2, axis=2) if is_grouped else of_pictures
        chances = levels[:, None] + of_pictures + draw.normal(0, 0.01, (2, 3, 1, 1))
        right = draw.random((2, 3, 250, 2)) < chances
        credit = (right.mean(axis=3) + right.all(axis=3)) / 2
        found = estimate([table(credit[0] - credit[1], groups, answer=0.25, weights=weights)])
        held += found.low <= gap <= found.high
    assert held >= 279


def test_holm_by_hand_keeps_the_order_and_never_falls_below_a_smaller_p():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(15) ** 3
    assert holm(list(p_values)) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


def with_gaps(values, share, *, seed):
    """The values without a random part of them; every row and column keeps some."""
    draw = np.random.default_rng(seed)
    while True:
        is_there = draw.random(values.shape) > share
        if is_there.any(axis=0).all() and is_there.any(axis=1).all():
            return np.where(is_there, values, np.nan)


def by_projections(values):
    """The parts of the variance by their definition: components whose quadratic forms have the right expectations."""
    seeds, units = values.shape
    row, column = np.nonzero(~np.isnan(values))
    x = values[row, column]
    of_seeds, of_units = np.eye(seeds)[row], np.eye(units)[column]

    def left_over(*designs):
        design = np.hstack(designs)
        return np.eye(len(x)) - design @ np.linalg.pinv(design)

    whole = left_over(of_seeds, of_units)
    rest = x @ whole @ x / np.trace(whole)

    def component(other, own):
        form = left_over(other) - whole
        return (x @ form @ x - np.trace(form) * rest) / np.trace(own.T @ form @ own)

    seed, unit = component(of_units, of_seeds), component(of_seeds, of_units)
    share_seed, share_unit = of_seeds.mean(axis=0), of_units.mean(axis=0)
    return seed * share_seed @ share_seed + rest / len(x), unit * share_unit @ share_unit, rest / len(x)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4])
def test_with_values_missing_the_parts_are_those_of_the_projections(share):
    draw = np.random.default_rng(8)
    values = draw.normal(0, 0.5, (5, 1)) + draw.normal(0, 1, (1, 12)) + draw.normal(0, 1, (5, 12))
    gapped = with_gaps(values, share, seed=9)
    found = variance_of([table(gapped)])
    parts = found.seeds.variance, found.questions.variance, found.rest.variance
    assert parts == pytest.approx(by_projections(gapped))


def test_the_mean_is_that_of_the_values_there_are():
    values = with_gaps(np.random.default_rng(10).choice([-1.0, 0, 1], size=(4, 30)), 0.3, seed=11)
    groups = np.repeat(np.arange(10), 3)
    for given in (None, groups):
        found = estimate([table(values, given)])
        assert found.mean == pytest.approx(np.nanmean(values))
        assert found.low < found.mean < found.high


def test_what_a_group_lacks_is_missing_only_where_all_of_it_is():
    values = np.array([[1.0, np.nan, 0, 0], [1, 1, np.nan, np.nan]])
    found = table(values, ["a", "a", "b", "b"]).values
    assert np.isnan(found).tolist() == [[False, False], [False, True]]
    assert np.nanmean(found) == pytest.approx(3 / 5)


def test_an_interval_holds_the_truth_where_some_judge_few_and_some_judge_all():
    draw, held = np.random.default_rng(12), 0
    for _ in range(400):
        values = draw.normal(0, 0.3, (8, 1)) + draw.normal(0, 0.7, (1, 24)) + draw.normal(0, 1, (8, 24))
        for judge, last in enumerate((24, 24, 24, 20, 20, 16, 12, 6)):
            values[judge, draw.permutation(24)[last:]] = np.nan
        found = estimate([table(values)])
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 400 <= 0.99


def test_repetitions_that_share_no_question_still_vary():
    values = np.array([[1.0, 1, 0, np.nan, np.nan, np.nan], [np.nan, np.nan, np.nan, -1, -1, 0]])
    found = estimate([table(values)])
    assert found.mean == 0
    assert found.high > 1


def test_values_missing_from_one_of_several_tasks_are_refused():
    gapped = np.array([[1.0, np.nan], [0, 1]])
    with pytest.raises(ValueError, match="missing from one of several tasks"):
        estimate([table(gapped), table(np.ones((2, 2)))])
