import numpy as np
import pytest

from benchmarks import null_simulation
from moslora.comparison.statistics import Questions, compare_arms, is_above_chance
from moslora.errors import CheckpointError
from moslora.estimation import estimate, holm, table


def vector(right, total=100):
    """The first `right` of `total` questions answered right."""
    return (np.arange(total) < right).astype(int)


def arm(counts, total=100, **shift):
    return {seed: {"task": np.roll(vector(right, total), shift.get("by", 0))} for seed, right in counts.items()}


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
        "one seed: cannot tell (questions right only here 10, only with lora 0; within this seed p 0.0013)"
    )


def test_one_seed_that_diverged_says_so():
    guess = {1: {"task": np.full(100, 0.25)}}
    _, differences = compare_arms({"lora": arm({1: 60}), "dora": guess}, baseline="lora", tasks=["task"])
    assert differences[0].mean == pytest.approx(-0.35)
    assert differences[0].verdict == "one seed, at which dora or lora diverged: cannot tell"


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


def test_accuracy_and_difference_come_from_one_model_and_stay_within_what_is_possible():
    scores = {"lora": arm({1: 99, 2: 97}), "dora": arm({1: 1, 2: 3})}
    results, (difference, _) = compare_arms(scores, baseline="lora", tasks=["task"])
    found = estimate([table(np.stack([vector(99), vector(97)]))])
    assert found.high > 1
    assert (results["lora"]["task"].low, results["lora"]["task"].high) == (pytest.approx(found.low), 1.0)
    assert (results["dora"]["task"].low, difference.low) == (0.0, -1.0)


def test_questions_that_depend_on_each_other_widen_accuracies_and_differences_of_runs():
    draw = np.random.default_rng(0)
    right = {name: np.repeat(draw.random(50) < 0.7, 4).astype(int) for name in ("lora", "dora")}
    scores = {name: {seed: {"task": found} for seed in (1, 2, 3)} for name, found in right.items()}
    groups = [number // 4 for number in range(200)]

    def found(questions):
        results, differences = compare_arms(scores, baseline="lora", tasks=["task"], questions=questions)
        return results["lora"]["task"], differences[0]

    for alone, grouped in zip(found(None), found({"task": Questions(200, groups)}), strict=True):
        assert grouped.mean == pytest.approx(alone.mean)
        assert grouped.high - grouped.low == pytest.approx(2 * (alone.high - alone.low), rel=0.05)


def guesses(draw, *, seeds, options, agreement, questions=384):
    """Arms that give the first answer in a part of the questions, whatever is asked, and draw the other answers."""
    key = draw.integers(0, options, (1, questions))
    own = draw.integers(0, options, (seeds, questions))
    return [*(np.where(draw.random(own.shape) < agreement, 0, own) == key).astype(int)]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
@pytest.mark.parametrize("agreement", [0, 0.9, 1])
def test_arms_that_guess_alike_in_every_seed_are_not_said_to_do_better(seeds, agreement):
    draw = np.random.default_rng([seeds, int(10 * agreement)])
    for options in (2, 4):
        found = [
            is_above_chance(guesses(draw, seeds=seeds, options=options, agreement=agreement), 1 / options)
            for _ in range(400)
        ]
        assert np.mean(found) <= 0.06


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_an_arm_that_is_right_in_60_percent_is_seen_although_its_seeds_differ(seeds):
    draw = np.random.default_rng(seeds)
    levels = draw.normal(0.6, 0.05, (100, seeds, 1))
    assert np.mean([is_above_chance([*one], 0.25) for one in draw.random((100, seeds, 384)) < levels]) >= 0.9


def test_what_guessing_gets_right_is_counted_by_question():
    right, chance = np.repeat([1, 0], [40, 40]), np.repeat([0.5, 0.2], [40, 40])
    assert is_above_chance([right], 0.35)
    assert is_above_chance([right], chance)
    assert not is_above_chance([right], 0.5)
    assert not is_above_chance([np.repeat([1, 0], [28, 52])], chance)


def test_groups_of_questions_count_as_one_where_an_arm_is_held_against_guessing():
    right = np.repeat([1, 0], [32, 48])  # 40 % of 80, of which each four are answered alike
    assert is_above_chance([right], 0.25)
    assert not is_above_chance([right], 0.25, groups=[number // 4 for number in range(80)])


def simulated(name, *, seeds, comparisons, gap=0.0):
    setting = next(setting for setting in null_simulation.SETTINGS if setting.name == name)
    shares = setting.accuracy + gap, setting.accuracy
    levels = np.array([null_simulation.level_of(setting, share) for share in shares])
    rng = np.random.default_rng(seeds)
    first, second = null_simulation.simulate(setting, seeds=seeds, comparisons=comparisons, levels=levels, rng=rng)
    return setting, first - second


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("name", ["usual", "large seed variance", "the same, seeds alike", "the study: 96 groups of 4"])
def test_at_most_7_percent_of_1000_comparisons_without_a_difference_claim_one(seeds, name):
    setting, differences = simulated(name, seeds=seeds, comparisons=1000)
    assert differences.mean() == pytest.approx(0, abs=0.01)  # there is no difference in expectation
    found = null_simulation.chosen(differences, setting)
    assert found.is_claimed.mean() <= 0.07
    assert ((found.low <= 0) & (found.high >= 0)).mean() >= 0.93


def test_the_plain_t_test_would_claim_too_often_and_a_gap_of_5_points_is_seen():
    setting, null = simulated("usual", seeds=5, comparisons=1000)
    assert null_simulation.paired_t(null, setting).is_claimed.mean() > 0.09
    setting, planted = simulated("usual", seeds=5, comparisons=500, gap=0.05)
    assert planted.mean() == pytest.approx(0.05, abs=0.005)
    assert null_simulation.chosen(planted, setting).is_claimed.mean() > 0.4


def test_two_seeds_can_show_a_difference():
    setting, planted = simulated("methods nearly the same", seeds=2, comparisons=500, gap=0.1)
    assert null_simulation.chosen(planted, setting).is_claimed.mean() > 0.5


def credits(draw, *, shift=0.0, seeds=(1, 2, 3), total=200):
    """What annotators agree on: 0, 0.3, 0.6, 0.9 or 1 a question, for an arm that is better by a shift."""
    steps, base = np.array([0, 0.3, 0.6, 0.9, 1]), np.random.default_rng(0).random(total)
    return {
        seed: {"vqa": steps[np.clip((5 * (base + shift) + draw.normal(0, 0.7, total)).astype(int), 0, 4)]}
        for seed in seeds
    }


VQA = {"vqa": Questions(200, steps=np.full(200, 0.1))}


def test_credits_are_compared_by_their_means():
    draw = np.random.default_rng(1)
    scores = {"lora": credits(draw), "dora": credits(draw, shift=0.1)}
    results, (difference, _) = compare_arms(scores, baseline="lora", tasks=["vqa"], questions=VQA)
    assert results["lora"]["vqa"].mean == pytest.approx(np.mean([one["vqa"] for one in scores["lora"].values()]))
    assert difference.verdict.startswith("better than lora by ")
    assert difference.low > 0


def test_weights_make_accuracies_and_differences_weighted_means():
    draw = np.random.default_rng(2)
    scores, weights = {"lora": credits(draw), "dora": credits(draw, shift=0.1)}, np.repeat([1.0, 10.0], 100)
    questions = {"vqa": VQA["vqa"]._replace(weights=weights)}
    results, (difference, _) = compare_arms(scores, baseline="lora", tasks=["vqa"], questions=questions)
    expected = {
        arm: np.mean([np.average(one["vqa"], weights=weights) for one in seeds.values()])
        for arm, seeds in scores.items()
    }
    assert {arm: found["vqa"].mean for arm, found in results.items()} == pytest.approx(expected)
    assert difference.mean == pytest.approx(expected["dora"] - expected["lora"])


def test_one_seed_of_credits_counts_no_questions():
    draw = np.random.default_rng(3)
    scores = {"lora": credits(draw, seeds=[1]), "dora": credits(draw, seeds=[1], shift=0.3)}
    _, (difference, _) = compare_arms(scores, baseline="lora", tasks=["vqa"], questions=VQA)
    assert difference.verdict == "one seed: cannot tell (answers may be worth a part; within this seed p < 0.001)"
    diverged = {"lora": scores["lora"], "dora": {1: {"vqa": VQA["vqa"].guess}}}
    _, (difference, _) = compare_arms(diverged, baseline="lora", tasks=["vqa"], questions=VQA)
    assert difference.verdict == "one seed, at which dora or lora got what guessing gets: cannot tell"


def test_an_average_over_tasks_of_which_one_has_credits_counts_no_questions():
    draw = np.random.default_rng(4)
    scores = {
        name: {1: {**arm({1: right})[1], **credits(draw, seeds=[1])[1]}} for name, right in (("lora", 60), ("dora", 70))
    }
    _, found = compare_arms(scores, baseline="lora", tasks=["task", "vqa"], questions=VQA)
    assert {one.task: "questions right only here" in one.verdict for one in found} == {
        "task": True,
        "vqa": False,
        "average": False,
    }


def test_guessing_is_beaten_by_credits_and_weights_too():
    draw = np.random.default_rng(5)
    values = draw.choice([0.0, 0.25, 1.0], (3, 200), p=[0.25, 0.5, 0.25])  # two guesses of two options on a picture
    weights, steps = np.repeat([1.0, 5.0], 100), np.full(200, 0.25)
    assert not is_above_chance([*values], 0.375, weights=weights, steps=steps)
    better = values.copy()
    better[:, 100:150] = 1  # of those that count
    assert is_above_chance([*better], 0.375, weights=weights, steps=steps)
