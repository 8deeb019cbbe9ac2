import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from moslora.comparison.statistics import compare_arms, holm, mcnemar, mean_over_seeds, paired_difference
from moslora.errors import CheckpointError

SIMULATION = Path(__file__).parents[2] / "benchmarks" / "null_simulation.py"


def vector(right, total=100):
    """The first `right` of `total` questions answered right."""
    return (np.arange(total) < right).astype(int)


def arm(counts, total=100, **shift):
    return {seed: {"task": np.roll(vector(right, total), shift.get("by", 0))} for seed, right in counts.items()}


def without_question_effects(seed_means, questions=60):
    """Seeds × questions of -1, 0, 1: every question is favoured about as often, so only seeds differ."""
    table = np.zeros((len(seed_means), questions))
    start = 0
    for row, count in zip(table, seed_means, strict=True):
        row[(start + np.arange(abs(count))) % questions] = np.sign(count)
        start += abs(count)
    return table


def test_the_interval_over_seeds_is_the_t_interval():
    values = [0.5, 0.56, 0.52, 0.61]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    mean, low, high = mean_over_seeds(values)
    assert mean == pytest.approx(0.5475)
    assert (low, high) == pytest.approx(expected)


def test_the_interval_over_seeds_stays_between_0_and_1_and_needs_two_seeds():
    assert mean_over_seeds([0.9, 1.0])[1:] == (pytest.approx(0.95 - 12.7062 * 0.05, abs=1e-4), 1.0)
    assert mean_over_seeds([0.7]) == (0.7, None, None)
    assert mean_over_seeds([0.7, 0.7]) == (0.7, 0.7, 0.7)


def test_without_question_effects_the_test_is_the_paired_t_test_of_the_seeds_means():
    table = without_question_effects([9, 4, 12, -3, 6])
    means = table.mean(axis=1)
    expected = stats.ttest_rel(means + 0.5, np.full(5, 0.5))
    found = paired_difference([table])
    assert found.mean == pytest.approx(means.mean())
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_question_effects_by_hand():
    # Seeds' means 1/4 and 0: the variance of their mean is 1/64. Squares: total 6.875 = questions 6.375 (3 degrees of
    # freedom, so 2.125) + seeds 0.125 + rest 0.375 (3 degrees, so 0.125): questions add (2.125 - 0.125) / 8.
    table = np.array([[1.0, 1, -1, 0], [1, 1, -1, -1]])
    weights = np.array([1 / 64, 1 / 4])
    half = weights @ stats.t.ppf(0.975, [1, 3]) / np.sqrt(weights.sum())
    found = paired_difference([table])
    assert found.mean == 0.125
    assert (found.low, found.high) == pytest.approx((0.125 - half, 0.125 + half))
    assert weights @ stats.t.isf(found.p_value / 2, [1, 3]) / np.sqrt(weights.sum()) == pytest.approx(0.125)


def test_the_same_questions_favouring_a_method_in_every_seed_do_not_make_it_certain():
    favoured = np.repeat([1, -1, 0], [12, 8, 80])  # 12 questions favour one method, 8 the other, whatever the seed
    table = np.array([favoured, favoured, favoured])
    table[0, 0] = 0  # else the seeds' means would not vary at all
    assert stats.ttest_1samp(table.mean(axis=1), 0).pvalue < 0.05
    assert paired_difference([table]).p_value > 0.3


def test_interval_and_p_value_agree_on_what_is_shown():
    generator = np.random.default_rng(1)
    shown = 0
    for _ in range(200):
        found = paired_difference([generator.choice([-1, 0, 1], size=(3, 30), p=[0.1, 0.7, 0.2])])
        assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)
        shown += found.p_value < 0.05
    assert 0 < shown < 200


def test_means_that_lie_close_together_by_luck_do_not_make_it_certain():
    generator = np.random.default_rng(3)
    one = np.repeat([1, -1, 0], [12, 8, 80])  # in every seed 12 questions favour one method, 8 the other
    table = np.stack([generator.permutation(one) for _ in range(3)])
    table[0, np.flatnonzero(table[0] == 1)[0]] = 0  # else the seeds' means would not vary at all
    assert stats.ttest_1samp(table.mean(axis=1), 0).pvalue < 0.05
    found = paired_difference([table])
    assert found.p_value > 0.1
    assert found.high - found.low > 0.1


def test_identical_answers_show_nothing_within_what_one_question_is_worth():
    found = paired_difference([np.zeros((3, 200))])
    assert (found.mean, found.p_value) == (0, 1)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 199) / 200)


def test_a_difference_on_every_question_is_shown_although_nothing_varies():
    found = paired_difference([np.ones((3, 50))])
    assert found.mean == 1
    assert 0 < found.p_value < 1e-6


def test_the_average_counts_every_task_alike():
    big, small = np.zeros((3, 400)), without_question_effects([5, 6, 7], questions=50)
    assert paired_difference([big, small]).mean == pytest.approx(0.06)


def test_holm_by_hand_keeps_the_order_and_never_falls_below_a_smaller_p():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_agrees_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(0).random(15) ** 3
    assert holm(list(p_values)) == pytest.approx(multitest.multipletests(p_values, method="holm")[1])


def test_mcnemar_is_the_exact_binomial_test_of_the_questions_only_one_got_right():
    first, second = np.array([1] * 10 + [0] * 3 + [1] * 5), np.array([0] * 10 + [1] * 3 + [1] * 5)
    assert mcnemar(first, second) == (10, 3, pytest.approx(stats.binomtest(10, 13).pvalue))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_arms_are_paired_over_the_seeds_both_have():
    scores = {"lora": arm({1: 60, 2: 62, 3: 61}), "dora": arm({2: 70, 3: 68, 4: 99})}
    results, differences = compare_arms(scores, baseline="lora", tasks=["task"])
    assert results["dora"]["task"].per_seed == {"2": 0.7, "3": 0.68, "4": 0.99}
    assert [(d.arm, d.task, d.seeds) for d in differences] == [("dora", "task", 2), ("dora", "average", 2)]
    assert differences[0].mean == pytest.approx(0.075)


def test_one_seed_has_a_mean_but_no_interval_and_no_verdict():
    results, differences = compare_arms({"lora": arm({1: 60}), "dora": arm({1: 70})}, baseline="lora", tasks=["task"])
    assert results["dora"]["task"].low is None
    assert (differences[0].low, differences[0].p_value, differences[0].p_adjusted) == (None, None, None)
    assert differences[0].verdict == (
        "one seed: cannot tell (questions right only here 10, only with lora 0; within this seed McNemar p 0.002)"
    )


def test_arms_without_a_common_seed_have_no_difference():
    results, differences = compare_arms(
        {"lora": arm({1: 60, 2: 60}), "dora": arm({3: 70}), "vera": {}}, baseline="lora", tasks=["task"]
    )
    assert set(results) == {"lora", "dora"}
    assert differences == []


def test_p_values_are_adjusted_over_the_arms_of_a_task():
    scores = {
        "lora": arm({1: 50, 2: 51, 3: 50}),
        "dora": arm({1: 60, 2: 61, 3: 61}),
        "loha": arm({1: 52, 2: 50, 3: 51}),
        "vera": arm({1: 50}),
    }
    _, differences = compare_arms(scores, baseline="lora", tasks=["task"])
    dora, loha, vera = (d for d in differences if d.task == "task")
    assert dora.p_adjusted == pytest.approx(2 * dora.p_value)
    assert loha.p_adjusted == pytest.approx(max(loha.p_value, dora.p_adjusted))
    assert vera.p_adjusted is None


def test_single_tasks_are_adjusted_over_arms_and_tasks_and_the_average_over_arms():
    def both(first: dict[int, int], second: dict[int, int]):
        one, other = arm(first), arm(second)
        return {seed: {"task": one[seed]["task"], "second": other[seed]["task"]} for seed in first}

    scores = {
        "lora": both({1: 50, 2: 51, 3: 50}, {1: 50, 2: 50, 3: 51}),
        "dora": both({1: 60, 2: 61, 3: 61}, {1: 52, 2: 50, 3: 51}),
    }
    _, differences = compare_arms(scores, baseline="lora", tasks=["task", "second"])
    first, second, average = differences
    assert (first.task, second.task, average.task) == ("task", "second", "average")
    assert [first.p_adjusted, second.p_adjusted] == pytest.approx(holm([first.p_value, second.p_value]))
    assert first.p_adjusted > first.p_value
    assert average.p_adjusted == average.p_value


def test_each_arm_may_have_a_baseline_of_its_own():
    scores = {name: arm({1: 50 + n, 2: 52 + n}) for n, name in enumerate(["lora", "dora", "lora 50%", "dora 50%"])}
    _, differences = compare_arms(scores, baseline={"dora": "lora", "dora 50%": "lora 50%"}, tasks=["task"])
    assert [(d.arm, d.baseline) for d in differences if d.task == "task"] == [
        ("dora", "lora"),
        ("dora 50%", "lora 50%"),
    ]


def test_missing_tasks_and_other_numbers_of_questions_are_refused():
    with pytest.raises(CheckpointError, match="dora, seed 1 was not scored on task; score every run"):
        compare_arms({"lora": arm({1: 5}), "dora": {1: {}}}, baseline="lora", tasks=["task"])
    with pytest.raises(CheckpointError, match="dora, seed 1 has 50 answers to task, another run has 100"):
        compare_arms({"lora": arm({1: 5}), "dora": arm({1: 5}, total=50)}, baseline="lora", tasks=["task"])


@pytest.fixture(scope="module")
def simulation():
    return runpy.run_path(str(SIMULATION))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("name", ["usual", "large seed variance", "the same, seeds alike"])
def test_at_most_7_percent_of_2000_comparisons_without_a_difference_claim_one(simulation, seeds, name):
    setting = next(setting for setting in simulation["SETTINGS"] if setting.name == name)
    generator = np.random.default_rng(seeds)
    tables = simulation["simulate"](setting, seeds=seeds, comparisons=2000, gap=0.0, rng=generator)
    assert tables.mean() == pytest.approx(0, abs=0.01)  # there is no difference in expectation
    assert simulation["chosen"](tables).mean() <= 0.07


def test_the_plain_t_test_would_claim_too_often_and_a_gap_of_5_points_is_seen(simulation):
    usual = next(setting for setting in simulation["SETTINGS"] if setting.name == "usual")
    generator = np.random.default_rng(0)
    null = simulation["simulate"](usual, seeds=5, comparisons=1000, gap=0.0, rng=generator)
    assert simulation["paired_t"](null).mean() > 0.09
    planted = simulation["simulate"](usual, seeds=5, comparisons=500, gap=0.05, rng=generator)
    assert planted.mean() == pytest.approx(0.05, abs=0.005)
    assert simulation["chosen"](planted).mean() > 0.4
