import numpy as np
import pytest
from scipy import stats

from moslora.judging.analysis import analyse
from tests.judging.simulated import drawn, judgement, study, written


def only(judgements, **options):
    (found,) = analyse(study(judgements), draws=200, **options).findings
    return found


def test_shares_mean_and_sign_test_by_hand():
    found = only(written({"ann": "wwtl", "ben": "wttl", "cat": "wwtt"}))
    assert (found.win.value, found.tie.value, found.loss.value) == pytest.approx((5 / 12, 5 / 12, 2 / 12))
    assert found.mean == pytest.approx(3 / 12)
    assert (found.judges, found.pairs, found.judgements) == (3, 4, 12)
    assert (found.for_first, found.for_second) == (2, 1)  # the third pair has a mean of 0
    assert found.sign_p == pytest.approx(stats.binomtest(2, 3).pvalue)


def test_the_interval_by_hand():
    # Judges' means 1/4 and 0, pairs (1, 1, -1, -1/2): the two-way table of tests/test_estimation.py.
    found = only(written({"ann": "wwlt", "ben": "wwll"}))
    weights = np.array([1 / 64, 1 / 4])
    half = weights @ stats.t.ppf(0.975, [1, 3]) / np.sqrt(weights.sum())
    assert found.mean == 0.125
    assert (found.low, found.high) == (max(-1, 0.125 - half), min(1, 0.125 + half))


def test_all_ties_show_no_difference_within_what_one_pair_is_worth():
    found = only(written({f"judge {n}": "t" * 32 for n in range(16)}))
    assert (found.win.value, found.tie.value, found.loss.value) == (0, 1, 0)
    assert found.win.high == pytest.approx(1 - found.tie.low) == pytest.approx(0.109, abs=1e-3)
    assert found.high == pytest.approx(stats.t.ppf(0.975, 31) / 32)
    assert (found.for_first, found.for_second, found.sign_p) == (0, 0, 1)
    assert "no difference between a and b is shown (-6.4 to 6.4 points" in found.verdict
    assert analyse(study(written({"ann": "tt", "ben": "tt"}))).agreement[0].nominal is None


def test_a_single_answer_that_is_no_tie_is_worth_one_answer_of_each_judge():
    rows = {f"judge {n}": "t" * 32 for n in range(16)}
    found = only(written(rows | {"judge 3": "t" * 31 + "w"}))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 31) / 32 / 4, rel=0.01)


def test_unanimous_judges_show_a_difference_and_never_more_than_all():
    found = only(written({f"judge {n}": "w" * 20 for n in range(5)}))
    assert found.mean == found.high == 1
    assert found.low == pytest.approx(1 - stats.t.ppf(0.975, 19) / 20)
    assert found.p_adjusted < 0.001
    assert found.sign_p == pytest.approx(2 * 0.5**20)


def test_two_judges_who_agree_on_three_pairs_show_nothing():
    assert only(written({"ann": "www", "ben": "wwt"})).p_adjusted > 0.05


def test_one_judge_gives_shares_without_intervals_and_no_claim():
    found = only(written({"ann": "wwwwwwwwwwtl"}))
    assert found.win == (pytest.approx(10 / 12), None, None)
    assert (found.low, found.high, found.p_value, found.p_adjusted) == (None, None, None, None)
    assert found.verdict == (
        "one judge: cannot tell what other judges would give (10 pairs for a, 1 for b; sign test p 0.012)"
    )


def test_one_pair_gives_shares_without_intervals_and_no_claim():
    found = only(written({f"judge {n}": "w" for n in range(20)}))
    assert (found.low, found.p_adjusted) == (None, None)
    assert found.verdict == "one pair: cannot tell what other pairs would give (1 pair for a, 0 for b)"


def test_a_judge_with_missing_pairs_counts_for_those_there_are():
    found = only(written({"ann": "wwtl", "ben": "w...", "cat": ".ttt"}))
    assert found.judgements == 8
    assert found.mean == pytest.approx(2 / 8)
    assert found.low < found.mean < found.high
    assert found.win.low <= found.win.value <= found.win.high


def test_pairs_answered_alike_by_all_judges_are_not_taken_as_independent_judgements():
    letters = "wwwwwwwwwlllllttttttttttttttttttt"  # 9 pairs for, 5 against: a coin's toss
    found = only(written({f"judge {n}": letters for n in range(15)}))
    independent = stats.binomtest(9 * 15, 14 * 15).pvalue
    assert independent < 1e-3
    assert found.p_adjusted > 0.2
    assert found.sign_p > 0.2


def test_several_seeds_of_a_prompt_are_not_taken_as_independent_pairs():
    letters = "".join(letter * 8 for letter in "wwtl")
    apart = written({f"judge {n}": letters for n in range(6)})
    together = [judgement(**(vars(one) | {"prompt": f"prompt {int(one.pair[1:]) // 8}"})) for one in apart]
    wide, narrow = only(together), only(apart)
    assert (wide.units, wide.unit, narrow.units, narrow.unit) == (4, "prompt", 32, "pair")
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_each_subject_is_told_apart_and_adjusted_for_their_number():
    judgements = drawn(6, 40, gain=0.4, seed=3, subjects=("cat", "dog"))
    found = analyse(study(judgements), draws=100)
    assert [one.subject for one in found.by_subject] == ["cat", "dog"]
    assert sum(one.judgements for one in found.by_subject) == found.findings[0].judgements
    smaller, larger = sorted(found.by_subject, key=lambda one: one.p_value)
    assert smaller.p_adjusted == pytest.approx(2 * smaller.p_value)
    assert larger.p_adjusted == pytest.approx(max(larger.p_value, smaller.p_adjusted))


def test_questions_and_pairs_of_methods_are_adjusted_together():
    judgements = [
        one
        for number, (first, second) in enumerate((("a", "b"), ("a", "c"), ("b", "c")))
        for one in drawn(5, 20, gain=0.2 * number, seed=number, first=first, second=second, left=first)
    ]
    found = analyse(study(judgements, methods=("a", "b", "c")), draws=100).findings
    assert [(one.first, one.second) for one in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    least = min(found, key=lambda one: one.p_value)
    assert least.p_adjusted == pytest.approx(min(1, 3 * least.p_value))
    with_baseline = analyse(study(judgements, methods=("a", "b", "c")), baseline="b", draws=100)
    assert [(one.first, one.second) for one in with_baseline.findings] == [("a", "b"), ("c", "b")]
    assert with_baseline.findings[1].mean == pytest.approx(-found[2].mean)


def test_the_most_disputed_pairs_come_first():
    found = analyse(study(written({"ann": "wtww", "ben": "wtlt", "cat": "wtlw", "dan": "wtwt"})), draws=50).pairs
    assert [one.pair for one in found] == ["p2", "p0", "p3", "p1"]
    assert (found[0].wins, found[0].ties, found[0].losses) == (2, 0, 2)
    assert found[0].dispute == pytest.approx(4 / 6)
    assert [one.dispute for one in found[1:]] == [0, 0, 0]


def test_the_same_study_gives_the_same_numbers():
    judgements = drawn(5, 12, gain=0.1, seed=4)
    assert analyse(study(judgements), draws=100) == analyse(study(judgements), draws=100)
