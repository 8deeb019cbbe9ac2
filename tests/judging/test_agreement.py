import numpy as np
import pytest

from moslora.judging.agreement import alpha, share_alike

N = np.nan
# Four observers, twelve units, from Krippendorff's "Computing Krippendorff's Alpha-Reliability" (2011), part C.
PUBLISHED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
)


def test_the_published_example():
    assert alpha(PUBLISHED, "nominal").value == pytest.approx(0.743, abs=5e-4)
    assert alpha(PUBLISHED, "ordinal").value == pytest.approx(0.815, abs=5e-4)


def test_three_pairs_by_hand():
    # Coinciding answers: pairs (1, 1), (1, 0), (-1, -1): 2 of 6 disagree. Expected: 6 answers, 3, 1, 2 of each kind,
    # (36 - 9 - 1 - 4) / (6 · 5) = 22/30. Ordinal squares: 0 to 1 is 2², -1 to 1 is 3.5², -1 to 0 is 1.5².
    values = np.array([[1.0, 1, -1], [1, 0, -1]])
    assert alpha(values, "nominal").value == pytest.approx(1 - (2 / 6) / (22 / 30))
    expected = 2 * (3 * 1 * 2**2 + 3 * 2 * 3.5**2 + 1 * 2 * 1.5**2) / 30
    assert alpha(values, "ordinal").value == pytest.approx(1 - 2 * 2**2 / 6 / expected)


@pytest.mark.parametrize("scale", ["nominal", "ordinal"])
def test_it_is_that_of_the_krippendorff_package(scale):
    oracle = pytest.importorskip("krippendorff")
    draw = np.random.default_rng(0)
    for _ in range(40):
        values = draw.choice([-1.0, 0, 1], size=(draw.integers(2, 7), 15), p=draw.dirichlet([2, 2, 2]))
        values[draw.random(values.shape) < 0.2] = np.nan
        found = alpha(values, scale, draws=10)
        assert found.value == pytest.approx(oracle.alpha(reliability_data=values, level_of_measurement=scale))


def test_judges_of_one_mind_agree_wholly_and_guessing_ones_not_at_all():
    draw = np.random.default_rng(1)
    whole = alpha(np.repeat(draw.choice([-1.0, 0, 1], size=(1, 30)), 4, axis=0), "ordinal")
    assert whole == (1, 1, 1)
    value, low, high = alpha(draw.choice([-1.0, 0, 1], size=(6, 300)), "ordinal")
    assert low < 0 < high
    assert abs(value) < 0.05


def test_mostly_ties_give_an_alpha_near_0_although_judges_agree():
    values = np.zeros((5, 40))
    values[[0, 1, 2, 3], [3, 9, 20, 31]] = [1, -1, 1, -1]
    assert abs(alpha(values, "nominal").value) < 0.05
    assert np.mean(values == 0) == 0.98


def test_there_is_no_alpha_where_all_answers_are_alike_or_no_pair_has_two():
    assert alpha(np.zeros((3, 10)), "nominal") is None
    assert alpha(np.array([[1.0, N], [N, 0]]), "ordinal") is None
    assert alpha(np.array([[1.0, 0, -1]]), "ordinal") is None


def test_how_often_two_judges_answer_alike_counts_pairs_of_judges():
    nan = float("nan")
    values = np.array([[1, 0, 1, nan], [1, 0, -1, nan], [1, 1, nan, 0]])
    assert share_alike(values) == 4 / 7  # 3 of 3, 1 of 3, 0 of 1; the last pair has one judge
    assert share_alike(values[:1]) is None


def test_one_unit_has_an_alpha_without_an_interval():
    assert alpha(np.array([[1.0], [1], [0]]), "nominal") == (pytest.approx(0.0), None, None)


def test_pairs_of_one_prompt_are_drawn_together():
    draw = np.random.default_rng(2)
    values = np.repeat(draw.choice([-1.0, 0, 1], size=(4, 12), p=[0.2, 0.3, 0.5]), 6, axis=1)
    apart = alpha(values, "nominal")
    together = alpha(values, "nominal", unit_of_pair=np.repeat(np.arange(12), 6))
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
