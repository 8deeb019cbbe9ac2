import json
import subprocess
import sys

import pytest

from moslora.errors import DataError
from moslora.evaluation.scores import Accuracy, Answer, accuracy, accuracy_by_kind, agreement


def answers(*predictions, expected="a", kinds=None):
    return [Answer(n, expected, p, p == expected, kind=kinds[n] if kinds else None) for n, p in enumerate(predictions)]


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 300), (300, 300), (7, 40), (150, 300), (3269, 3270)]
)
def test_the_interval_is_wilsons(correct, total):
    stats = pytest.importorskip("scipy.stats")
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


def test_no_answers_have_no_accuracy():
    with pytest.raises(DataError, match="no answers to count; evaluate at least one question"):
        accuracy([])


@pytest.mark.parametrize(("correct", "total"), [(2, 1), (-1, 1), (0, 0)])
def test_impossible_counts_are_refused(correct, total):
    with pytest.raises(AssertionError):
        Accuracy(correct, total)


def test_agreement_is_the_share_of_equal_predictions():
    assert agreement(answers("a", "b", "c", None), answers("a", "c", "c", None)) == 0.5


def test_agreement_on_other_questions_is_refused():
    with pytest.raises(DataError, match="2 and 1 answers are not to the same questions"):
        agreement(answers("a", "b"), answers("a"))
    with pytest.raises(DataError, match="0 and 0 answers"):
        agreement([], [])


def test_an_answer_is_a_line_of_json():
    answer = Answer(3, "a", "b", False, kind="is-a", scores={"a": -1.5, "b": -0.5})
    assert json.loads(json.dumps(answer.to_dict())) == {
        "index": 3, "expected": "a", "predicted": "b", "is_correct": False, "kind": "is-a", "text": None,
        "scores": {"a": -1.5, "b": -0.5},
    }  # fmt: skip


def test_the_numbers_need_no_torch():
    code = "import sys, moslora.evaluation.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
