import pytest

from moslora.comparison.verdict import claim, of_difference, of_one_seed, overall, p_text, points
from moslora.records import ArmResult, ComparisonRecord, Difference, TuningResult


def difference(mean=0.021, low=0.004, high=0.038, p=0.01, adjusted=None, **changes):
    start = {"arm": "moslora", "baseline": "lora", "task": "average", "seeds": 5, "verdict": ""}
    adjusted = p if adjusted is None else adjusted
    return Difference(
        **{**start, "mean": mean, "low": low, "high": high, "p_value": p, "p_adjusted": adjusted, **changes}
    )


def unshown(mean=0.009, low=-0.005, high=0.023, p=0.2, **changes):
    return difference(mean, low, high, p, **changes)


def worse(**changes):
    return difference(-0.03, -0.05, -0.01, 0.002, **changes)


def one_seed(arm):
    return Difference(arm=arm, baseline="lora", task="average", mean=0.1, seeds=1, verdict="one seed: cannot tell")


def record(*differences, tasks=("piqa",), arms=(), doubts=None, diverged=None, plan=None, **changes):
    names = dict.fromkeys(["lora", *(d.arm for d in differences), *arms])
    doubts, diverged = doubts or {}, diverged or {}
    rows = [ArmResult(arm=n, method=n, doubts=doubts.get(n, []), diverged=diverged.get(n, [])) for n in names]
    return ComparisonRecord(
        plan=plan or {}, baseline="lora", tasks=list(tasks), arms=rows, differences=list(differences), **changes
    )


def test_what_is_shown_is_said_with_its_interval():
    assert of_difference(difference()) == "better than lora by 2.1 points (0.4 to 3.8; 5 seeds)"
    assert of_difference(worse(seeds=3)) == "worse than lora by 3.0 points (1.0 to 5.0; 3 seeds)"


def test_what_is_not_shown_says_how_large_a_difference_may_be():
    assert of_difference(unshown()) == "no difference shown: -0.5 to 2.3 points; differences above 2.3 are unlikely"
    left = unshown(mean=-0.01, low=-0.03, high=0.01)
    assert of_difference(left) == "no difference shown: -3.0 to 1.0 points; differences above 3.0 are unlikely"


def test_the_adjusted_p_value_decides():
    found = difference(p=0.03, adjusted=0.12)
    assert claim(found) == 0
    assert of_difference(found) == (
        "no difference shown once several arms are allowed for (Holm p 0.12): 0.4 to 3.8 points; "
        "differences above 3.8 are unlikely"
    )
    assert [claim(difference(p=0.049)), claim(difference(p=0.05)), claim(worse()), claim(one_seed("x"))] == [
        1,
        0,
        -1,
        0,
    ]


def test_an_interval_without_0_that_shows_nothing_says_why():
    found = record(difference(p=0.03, adjusted=0.12), worse(arm="dora"))
    assert "no difference from lora is shown for moslora (0.4 to 3.8 points, Holm p 0.12)" in overall(found)


def test_arms_with_baselines_of_their_own_are_not_said_to_be_compared_with_all():
    half = unshown(arm="moslora 50%").model_copy(update={"baseline": "lora 50%"})
    found = overall(record(unshown(arm="moslora 100%"), half))
    assert "no difference from its baseline is shown for moslora 100% (-0.5 to 2.3 points) and moslora 50% (" in found


def test_one_seed_cannot_tell():
    assert of_one_seed(12, 7, 0.3593, baseline="lora") == (
        "one seed: cannot tell (questions right only here 12, only with lora 7; within this seed p 0.36)"
    )


def test_a_comparison_on_one_task_is_one_sentence():
    found = record(difference(), worse(arm="dora"), unshown(arm="loha"), one_seed("vera"), arms=["full"])
    assert overall(found) == (
        "Over 1 to 5 seeds, on piqa: moslora is better than lora by 2.1 points (0.4 to 3.8); "
        "dora is worse than lora by 3.0 points (1.0 to 5.0); "
        "no difference from lora is shown for loha (-0.5 to 2.3 points); "
        "one seed cannot tell for vera; not compared: full."
    )


HIGHEST = "0.003 is the highest rate tried"
ALIKE = "0.003 is not told apart from 0.001 by the validation samples"


def test_a_claim_says_what_makes_its_learning_rates_uncertain():
    found = of_difference(worse(), doubts={"moslora": [HIGHEST, ALIKE], "lora": ["0.1 is the lowest rate tried"]})
    assert found == (
        "worse than lora by 3.0 points (1.0 to 5.0; 5 seeds), which may be the learning rate's doing "
        f"(moslora: {HIGHEST} and {ALIKE}; lora: 0.1 is the lowest rate tried)"
    )
    assert of_difference(worse(), doubts={"dora": [HIGHEST]}) == "worse than lora by 3.0 points (1.0 to 5.0; 5 seeds)"


def test_the_sentence_on_the_whole_names_every_rate_in_doubt_once_and_when_rates_were_chosen():
    doubts = {"moslora": [HIGHEST], "dora": [ALIKE]}
    plan = {"tuning": {"steps_share": 0.5}}
    rates = [TuningResult(arm="lora", learning_rate=0.1, validation_loss=1.0, run="x")]
    found = record(worse(), unshown(arm="dora"), doubts=doubts, plan=plan, tuning=rates)
    assert overall(found) == (
        "Over 5 seeds, on piqa, at learning rates chosen after 50 % of the steps: moslora is worse than lora by 3.0 "
        f"points (1.0 to 5.0), which may be the learning rate's doing (moslora: {HIGHEST}); no difference from lora is "
        f"shown for dora (-0.5 to 2.3 points); learning rates in doubt: dora ({ALIKE})."
    )
    whole = record(unshown(), plan={"tuning": {"steps_share": 1.0}}, tuning=rates)
    assert overall(whole).startswith("Over 5 seeds, on piqa: ")
    assert overall(record(unshown(), plan=plan)).startswith("Over 5 seeds, on piqa: ")  # one rate: nothing was tuned


def test_seeds_that_diverged_stand_in_the_sentence():
    found = overall(record(worse(seeds=3), diverged={"moslora": ["1", "3"]}))
    assert found.endswith("by 3.0 points (1.0 to 5.0); diverged, and counted as guessing: moslora (seed 1 and 3).")


def test_single_tasks_are_told_apart_from_the_average():
    tasks = ["piqa", "arc"]
    averages = [unshown(), worse(arm="dora")]
    single = [difference(task="piqa"), unshown(task="arc"), worse(arm="dora", task="arc")]
    assert overall(record(*averages, *single, tasks=tasks)) == (
        "Over 5 seeds, on the average of 2 tasks: dora is worse than lora by 3.0 points (1.0 to 5.0); "
        "no difference from lora is shown for moslora (-0.5 to 2.3 points); "
        "on single tasks better: moslora (piqa), worse: dora (arc)."
    )
    nothing = record(unshown(), unshown(task="piqa"), unshown(task="arc"), tasks=tasks)
    assert overall(nothing).endswith("; on no single task is a difference shown.")


def test_a_comparison_without_pairs_or_not_complete_says_so():
    assert overall(record(arms=["dora"])) == "Nothing can be compared: no arm has a seed in common with lora."
    assert overall(record(unshown(), is_complete=False)).startswith("Not complete yet. Over 5 seeds, on piqa: ")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.021, "2.1"), (-0.005, "-0.5"), (0.0004, "0.04"), (-0.0004, "-0.04"), (0.0, "0.0"), (-1e-6, "0.0")],
)
def test_points_have_one_decimal_and_no_negative_zero(share, text):
    assert points(share) == text


def test_small_p_values_are_not_printed_as_zero():
    assert [p_text(p) for p in (1e-12, 0.0123, 1.0, None)] == ["< 0.001", "0.012", "1", "–"]
