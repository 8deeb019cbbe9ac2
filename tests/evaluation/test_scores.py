import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from moslora.errors import DataError
from moslora.evaluation.scores import Accuracy, Answer, accuracy, accuracy_by_kind, agreement, chance


def answers(*predictions, expected="a", kinds=None, groups=None, options=None):
    return [
        Answer(
            n,
            expected,
            p,
            p == expected,
            kind=kinds[n] if kinds else None,
            group=groups[n] if groups else None,
            options=options[n] if options else None,
        )
        for n, p in enumerate(predictions)
    ]


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 300), (300, 300), (7, 40), (150, 300), (3269, 3270)]
)
def test_the_interval_is_wilsons(correct, total):
    expected = stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert Accuracy(correct, total).interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    low, high = Accuracy(correct, total).interval
    assert 0 <= low <= Accuracy(correct, total).value <= high <= 1


def test_the_interval_of_a_textbook_case():
    assert Accuracy(15, 50).value == 0.3
    assert Accuracy(15, 50).interval == pytest.approx((0.1910, 0.4375), abs=1e-4)  # Wilson 1927's formula by hand


def test_accuracy_counts_correct_answers_in_all_and_by_kind():
    given = answers("a", "b", None, "a", "a", kinds=["y", "x", "x", "y", None])
    assert accuracy(given) == Accuracy(3, 5)
    assert accuracy_by_kind(given) == {"x": Accuracy(0, 2), "y": Accuracy(2, 2)}
    assert list(accuracy_by_kind(given)) == ["x", "y"]


def test_questions_answered_four_times_are_worth_one():
    right = ["a" if number % 3 else "b" for number in range(60)]
    grouped = accuracy(answers(*np.repeat(right, 4), groups=[f"g{number // 4}" for number in range(240)]))
    assert grouped.groups == 60
    assert grouped.design_effect == pytest.approx(4 * 60 / 59)
    t, n, p = stats.t.ppf(0.975, 59), 59, 2 / 3
    centre, half = p + t**2 / (2 * n), t * (p * (1 - p) / n + t**2 / (4 * n**2)) ** 0.5
    assert grouped.interval == pytest.approx(((centre - half) / (1 + t**2 / n), (centre + half) / (1 + t**2 / n)))


def test_an_answer_for_all_of_a_group_is_right_once_in_each_and_varies_less():
    given = answers(*["a", "b", "c", "d"] * 20, groups=[f"g{number // 4}" for number in range(80)])
    low, high = accuracy(given).interval
    plain = Accuracy(20, 80).interval
    assert 0 < low < 0.25 < high
    assert high - low < (plain[1] - plain[0]) / 2


def test_the_interval_of_a_run_holds_its_accuracy_where_questions_come_in_groups():
    draw = np.random.default_rng(0)
    names = [f"g{number // 4}" for number in range(384)]
    held = 0
    for _ in range(400):
        levels = np.repeat(np.where(draw.random(96) < 0.5, 0.65, 0.95), 4)
        low, high = accuracy(answers(*np.where(draw.random(384) < levels, "a", "b"), groups=names)).interval
        held += low <= 0.8 <= high
    assert held >= 372


def test_all_right_counts_each_group_as_one_question():
    given = answers(*["a"] * 80, groups=[f"g{number // 4}" for number in range(80)])
    assert accuracy(given).design_effect == 4
    assert accuracy(given).interval[0] == pytest.approx(20 / (20 + stats.t.ppf(0.975, 19) ** 2))


def test_a_kind_takes_the_design_effect_of_all_questions():
    right = ["a" if number % 3 else "b" for number in range(20)]
    given = answers(*right * 2, kinds=["x"] * 20 + ["y"] * 20, groups=[f"g{number // 2}" for number in range(40)])
    whole = accuracy(given)
    assert accuracy_by_kind(given)["x"] == Accuracy(13, 20, whole.design_effect, whole.groups)


def test_chance_is_counted_by_each_questions_options():
    assert chance(answers("a", "a", "a", "b", options=[2, 4, 4, 5])) == pytest.approx(
        (1 / 2 + 1 / 4 + 1 / 4 + 1 / 5) / 4
    )
    assert chance(answers("a", "b", options=[4, None])) is None
    assert chance([]) is None


def test_no_answers_have_no_accuracy():
    with pytest.raises(DataError, match="no answers to count; evaluate at least one question"):
        accuracy([])


@pytest.mark.parametrize(("correct", "total"), [(2, 1), (-1, 1), (0, 0)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(ValueError, match=f"{correct} of {total} is not an accuracy"):
        Accuracy(correct, total)


def test_agreement_is_the_share_of_equal_predictions():
    assert agreement(answers("a", "b", "c", None), answers("a", "c", "c", None)) == 0.5


def test_agreement_on_other_questions_is_refused():
    with pytest.raises(DataError, match="2 and 1 answers are not to the same questions"):
        agreement(answers("a", "b"), answers("a"))
    with pytest.raises(DataError, match="0 and 0 answers"):
        agreement([], [])


def test_an_answer_is_a_line_of_json():
    answer = Answer(3, "a", "b", False, kind="is-a", scores={"a": -1.5, "b": -0.5}, options=2, group="is-a 4")
    assert json.loads(json.dumps(answer.to_dict())) == {
        "index": 3, "expected": "a", "predicted": "b", "is_correct": False, "kind": "is-a", "text": None,
        "scores": {"a": -1.5, "b": -0.5}, "options": 2, "group": "is-a 4",
    }  # fmt: skip


def test_the_numbers_need_no_torch():
    code = "import sys, moslora.evaluation.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def credits(*values, weights=None, groups=None, kinds=None, step=0.1):
    return [
        Answer(
            n,
            "a",
            "b",
            bool(value == 1),
            credit=float(value),
            step=step,
            weight=float(weights[n]) if weights is not None else 1.0,
            group=groups[n] if groups else None,
            kind=kinds[n] if kinds else None,
        )
        for n, value in enumerate(values)
    ]


def test_accuracy_is_the_weighted_mean_of_credits():
    found = accuracy(credits(1, 0.3, 0, weights=[1, 2, 1]))
    assert (found.correct, found.total, found.value) == (1, 3, pytest.approx(1.6 / 4))
    assert chance([Answer(0, "a", "a", True, options=2), Answer(1, "a", "a", True, options=4, weight=3)]) == 1.25 / 4


def test_equal_weights_and_units_of_several_answers_keep_wilsons_interval():
    given = [Answer(n, "a", "b", n % 8 != 7, unit=str(n // 4), weight=0.5) for n in range(80)]
    assert accuracy(given) == Accuracy(10, 20)


def test_the_interval_of_credits_is_that_of_students_t_far_from_the_ends():
    values = np.random.default_rng(0).choice([0, 0.3, 0.6, 0.9, 1], 400)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert accuracy(credits(*values)).interval == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_the_interval_of_weighted_credits_is_that_of_their_linearised_mean():
    draw = np.random.default_rng(1)
    weights, values = draw.uniform(0.2, 3, 400), draw.choice([0, 0.3, 0.6, 0.9, 1], 400)
    shares = weights / weights.sum()
    error = np.sum((shares * (values - shares @ values)) ** 2) ** 0.5
    low, high = accuracy(credits(*values, weights=weights)).interval
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.02)


@pytest.mark.parametrize("value", [0, 1])
def test_credits_that_are_all_alike_at_an_end_have_the_interval_of_as_many_answers(value):
    found = accuracy(credits(*[value] * 30))
    assert found.value == value
    low, high = found.interval
    assert high - low == pytest.approx(stats.t.ppf(0.975, 29) ** 2 / (30 + stats.t.ppf(0.975, 29) ** 2))
    unequal = accuracy(credits(*[value] * 30, weights=[10.0, *[1.0] * 29])).interval
    assert unequal[1] - unequal[0] > 2 * (high - low)


@pytest.mark.parametrize("shares", [[0.4, 0.1, 0.1, 0.1, 0.3], [0.9, 0.04, 0.02, 0.02, 0.02]])
def test_the_interval_of_a_run_holds_its_mean_credit(shares):
    draw, steps, held = np.random.default_rng(2), np.array([0, 0.3, 0.6, 0.9, 1]), 0
    for _ in range(300):
        low, high = accuracy(credits(*draw.choice(steps, 80, p=shares))).interval
        held += low <= steps @ np.array(shares) <= high
    assert held >= 279


def test_a_kind_of_credits_has_its_own_interval_unless_questions_come_in_groups():
    values, kinds = [1, 0.3, 0.6, 0.9] * 10, ["x"] * 20 + ["y"] * 20
    assert accuracy_by_kind(credits(*values, kinds=kinds))["x"] == accuracy(credits(*values[:20]))
    groups = [f"g{n // 2}" for n in range(40)]
    whole, own = (found(credits(*values, kinds=kinds, groups=groups)) for found in (accuracy, accuracy_by_kind))
    assert own["x"] == Accuracy(5, 20, whole.design_effect, 20, pytest.approx(0.7), whole.freedom)
