import json

import numpy as np
import pytest

from moslora.errors import ConfigError
from moslora.estimation import estimate
from moslora.judging import planning
from moslora.judging.planning import Assumptions, answers, detectable, make_plan, simulated
from moslora.judging.scores import answers_table


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "judge-plans"


def test_the_model_has_the_shares_of_variance_and_of_ties_it_is_asked_for():
    assumed = Assumptions(of_pairs=0.3, of_judges=0.1, ties=0.4)
    latent = simulated(40, 40, assumed, studies=60, seed=1)
    assert latent.var() == pytest.approx(1, abs=0.05)
    assert latent.mean(axis=1).var() == pytest.approx(0.3, abs=0.05)
    assert latent.mean(axis=2).var() == pytest.approx(0.1, abs=0.03)
    assert np.mean(answers(latent, assumed) == 0) == pytest.approx(0.4, abs=0.02)


def test_the_shift_for_a_gain_gives_that_gain():
    assumed = Assumptions()
    assert assumed.gain(0) == 0
    assert assumed.gain(assumed.shift(0.25)) == pytest.approx(0.25)
    latent = simulated(30, 30, assumed, studies=100, seed=2)
    assert answers(latent + assumed.shift(0.25), assumed).mean() == pytest.approx(0.25, abs=0.02)


def test_four_of_five_new_studies_show_the_detectable_difference():
    assumed = Assumptions()
    gain = detectable(6, 24, assumed)
    latent = simulated(6, 24, assumed, studies=400, seed=99)
    values = answers(latent + assumed.shift(gain), assumed)
    shown = np.mean([estimate([answers_table(one)]).low > 0 for one in values])
    assert shown == pytest.approx(0.8, abs=0.08)


def test_more_judges_more_pairs_and_fewer_questions_show_smaller_differences():
    found = make_plan([3, 10], [10, 40], studies=100).detectable
    assert found[0][0] > found[1][0] > found[1][1]
    assert found[0][0] > found[0][1] > found[1][1]
    assert make_plan([10], [40], questions=1, studies=100).detectable[0][0] < found[1][1]


def test_two_judges_of_two_pairs_show_nothing():
    assert make_plan([2], [2], studies=50).detectable == ((None,),)


def test_the_time_a_judge_needs_counts_questions_methods_and_checks():
    found = make_plan([2], [16, 2], questions=2, methods=3, seconds=10, studies=20)
    assert found.minutes == pytest.approx(((48 + 6) * 2 * 10 / 60, 6 * 2 * 10 / 60))
    assert found.comparisons == 6


def test_what_was_simulated_is_kept_and_asked_for_again(cache, monkeypatch):
    first = make_plan([4], [12], studies=50)
    (kept,) = cache.glob("*.json")
    monkeypatch.setattr(planning, "detectable", lambda *_, **__: 1 / 0)
    assert make_plan([4], [12], studies=50) == first
    kept.write_text('{"asked": [4, 1')
    with pytest.raises(ZeroDivisionError):  # a file that was cut off is made anew
        make_plan([4], [12], studies=50)
    with pytest.raises(ZeroDivisionError):  # and other assumptions are asked for anew
        make_plan([4], [12], studies=50, assumptions=Assumptions(ties=0.3))


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "file"))
    assert make_plan([4], [12], studies=20).detectable[0][0] > 0


def test_a_cached_file_says_what_was_asked(cache):
    make_plan([4], [12], studies=20)
    (kept,) = cache.glob("*.json")
    assert json.loads(kept.read_text())["asked"][:2] == [4, 12]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"of_pairs": 0.8, "of_judges": 0.3}, "cannot have 0.8 and 0.3 of the variance; give shares of at least 0"),
        ({"of_pairs": -0.1}, "cannot have -0.1 and 0.05"),
        ({"ties": 1.0}, "a share of ties of 1 is not possible; give one from 0 to below 1"),
    ],
)
def test_assumptions_that_cannot_be_are_refused(told, message):
    with pytest.raises(ConfigError, match=message):
        Assumptions(**told)


@pytest.mark.parametrize(
    ("judges", "pairs", "options", "message"),
    [
        ([1, 5], [32], {}, "judges: 1, allowed: 2 to 200 each"),
        ([5], [5000], {}, "pairs: 5000, allowed: 2 to 2000 each"),
        ([], [32], {}, "judges: none, allowed: 2 to 200 each"),
        ([5], [32], {"methods": 1}, "2 questions about 1 methods at 8 seconds make no study"),
    ],
)
def test_numbers_that_make_no_study_are_refused(judges, pairs, options, message):
    with pytest.raises(ConfigError, match=message):
        make_plan(judges, pairs, **options)
