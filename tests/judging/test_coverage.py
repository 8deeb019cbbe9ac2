"""That intervals hold the truth and nothing is claimed that is not there: a few kinds of study, and the stored ones."""

import json

import pytest

from benchmarks import judging_simulation as simulation
from moslora.judging.planning import Assumptions

USUAL = simulation.Setting(10, 32, 0.0, Assumptions())


def test_judgements_are_not_independent_and_only_the_rivals_take_them_for_it():
    found = simulation.of_setting(USUAL, count=300, seed=1)
    assert found["coverage"] > 0.92
    assert found["claims"] < 0.08
    assert found["claims_of_the_sign_test"] < 0.08
    assert found["coverage_if_judgements_were_independent"] < 0.8
    assert found["claims_if_judgements_were_independent"] > 0.2


def test_a_difference_is_seen_and_its_interval_holds_it():
    found = simulation.of_setting(USUAL._replace(gain=0.4), count=200, seed=2)
    assert found["coverage"] > 0.91
    assert found["claims"] > 0.9


@pytest.mark.parametrize("kind", [{"gaps": 0.8}, {"seeds": 4}])
def test_judges_who_stop_early_and_seeds_of_a_prompt_are_allowed_for(kind):
    found = simulation.of_setting(USUAL._replace(**kind), count=200, seed=3)
    assert found["coverage"] > 0.91
    assert found["claims"] < 0.09
    assert (found["share_missing"] > 0.3) == ("gaps" in kind)


def test_simulated_studies_have_the_shares_they_are_to_have():
    setting = USUAL._replace(gain=0.3, seeds=4)
    values = [one.values for one in simulation.studies(setting, 400, seed=4)]
    for share, value in zip(simulation.true_shares(setting), (1, 0, -1), strict=True):
        assert sum((one == value).mean() for one in values) / 400 == pytest.approx(share, abs=0.02)


def test_the_stored_studies_are_those_of_the_program_and_within_what_is_wanted():
    stored = json.loads(simulation.OUTPUT.read_text(encoding="utf-8"))
    assert stored["summary"] == json.loads(json.dumps(simulation.summary(stored["rows"])))
    asked = [simulation.described(setting) for setting in simulation.settings()]
    assert [{name: row[name] for name in asked[0]} for row in stored["rows"]] == asked
    low, mean, high = stored["summary"]["coverage"]
    assert low >= simulation.WANTED[0]
    assert 0.945 < mean < simulation.WANTED[1]
    assert high < 0.985  # of three judges, on the wide side
    noise = 2 * (simulation.MOST_FALSE * (1 - simulation.MOST_FALSE) / stored["studies"]) ** 0.5
    assert stored["summary"]["false_claims"][2] <= simulation.MOST_FALSE + noise
    assert stored["summary"]["coverage_of_shares"][0] > 0.9
