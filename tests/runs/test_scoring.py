import pytest

from moslora.evaluation.scores import Answer
from moslora.runs.material import spread_indices
from moslora.runs.scoring import agreement


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(10, 3, [0, 3, 6]), (4, 4, [0, 1, 2, 3]), (3, 40, [0, 1, 2]), (384, 2, [0, 192])],
)
def test_questions_are_spread_over_the_whole_set(total: int, count: int, expected: list[int]):
    assert spread_indices(total, count) == expected


def test_no_answer_agrees_with_nothing():
    answers = [Answer(index, "a", predicted, False) for index, predicted in enumerate(["a", "b", None, "d"])]
    assert agreement(["a", "c", None, "d"], answers) == 0.5
