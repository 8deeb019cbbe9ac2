from collections.abc import Callable
from pathlib import Path

import pytest

from moslora.comparison import estimate as estimate_module
from moslora.comparison.compare import collect
from moslora.comparison.cost import Measured, measure, measure_costs, measured_recipe, read_costs
from moslora.comparison.estimate import estimate
from moslora.comparison.matrix import arms_of, final_run
from moslora.comparison.plan import Plan
from moslora.comparison.rehearsal import Rehearsal

BuildPlan = Callable[..., Plan]


def test_steps_are_timed_after_one_to_warm_up(tiny_plan: BuildPlan):
    plan = tiny_plan()
    recipe = measured_recipe(plan, arms_of(plan)[1], steps=2)
    assert (recipe.training.max_steps, recipe.evaluation.tasks) == (3, [])
    found = measure(recipe)
    assert len(found.seconds) == 2
    assert all(seconds > 0 for seconds in found.seconds)
    assert found.trainable == 1792 + 64
    assert found.peak_memory_bytes > 1e8


def test_costs_are_measured_in_fresh_processes_and_stand_in_the_table(tiny_plan: BuildPlan, tmp_path: Path):
    arms = {"lora": {"method": "lora"}, "wrong": {"method": "lora", "target_modules": ["queery"]}}
    plan = tiny_plan(arms=arms, fractions=[0.5, 1.0])
    lines: list[str] = []
    costs = measure_costs(plan, tmp_path, rounds=1, steps=2, report=lines.append)
    assert list(costs) == ["lora 50%", "lora 100%"]
    assert (costs["lora 50%"].steps, costs["lora 50%"].trainable) == (2, 1792)
    assert read_costs(tmp_path) == costs
    assert lines[0].startswith("round 1 of 1  lora: ")
    assert lines[1].startswith("round 1 of 1  wrong: failed: ")
    assert collect(plan, tmp_path).arms[0].cost == costs["lora 50%"]


def test_an_estimate_counts_the_runs_and_times_them_and_writes_nothing(
    tiny_plan: BuildPlan, tmp_path: Path, monkeypatch
):
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    plan = tiny_plan(seeds_of={"moslora": [1, 2, 3]}, fractions=[0.5, 1.0])
    found = estimate(plan)
    assert (found.tuning_runs, found.final_runs) == (4, 2 * 2 + 2 * 3)
    assert [(arm.arm, arm.learning_rates, arm.seeds, arm.steps) for arm in found.arms] == [
        ("lora 50%", 2, 2, 4),
        ("moslora 50%", 2, 3, 4),
        ("lora 100%", 0, 2, 4),
        ("moslora 100%", 0, 3, 4),
    ]
    assert found.seconds is not None
    assert found.seconds == sum(arm.seconds or 0 for arm in found.arms) > 0
    assert all(arm.seconds_per_step and arm.peak_memory_bytes for arm in found.arms)
    assert found.summary().startswith("4 runs to choose learning rates and 10 that count: about ")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step takes 1 s, a validation sample 10, the scoring of a run 1,000, loading 2,000 and saving 3,000."""
    known = {"saving": 3000.0, "validating_a_sample": 10.0, "scoring": 1000.0, "peak_memory_bytes": 7}

    def play(self: Rehearsal, _model: object, _planned: object) -> None:
        for name, value in known.items():
            setattr(self, name, value)

    def measured(_recipe: object, *, after: Callable[..., None]) -> Measured:
        after(None, None)
        return Measured([1.0, 1.0], peak_memory_bytes=5, trainable=1, setup_seconds=2000.0)

    monkeypatch.setattr(Rehearsal, "play", play)
    monkeypatch.setattr(estimate_module, "measure", measured)


def test_an_estimate_counts_all_that_a_run_does(tiny_plan: BuildPlan, known_times: None):
    tuning = {"learning_rates": [0.01, 0.1, 1.0], "validation_samples": 4, "steps_share": 0.5}
    (arm,) = estimate(tiny_plan(arms={"lora": {"method": "lora"}}, tuning=tuning)).arms
    assert arm.seconds == 2 * (2000 + 4 + 1000 + 3000) + 3 * (2000 + 2 + 4 * 10 + 3000)
    assert arm.peak_memory_bytes == 7


def test_an_estimate_counts_every_validation(tiny_plan: BuildPlan, tiny_settings, known_times: None):
    tiny_settings["recipe"]["training"] |= {"evaluate_every_steps": 2}
    tiny_settings["recipe"]["data"] |= {"validation_samples": 3}
    (arm,) = estimate(tiny_plan(arms={"lora": {"method": "lora"}}, tuning={"learning_rates": [0.01]})).arms
    assert arm.seconds == 2 * (2000 + 4 + (1 + 2) * 3 * 10 + 1000 + 3000)


def test_an_estimate_tunes_on_all_samples_and_counts_the_steps_of_each_share(
    tiny_plan: BuildPlan, tiny_settings, known_times: None
):
    tiny_settings["recipe"]["training"] |= {"max_steps": None, "epochs": 2}
    tuning = {"learning_rates": [0.01, 0.1], "validation_samples": 4, "steps_share": 0.5}
    plan = tiny_plan(arms={"lora": {"method": "lora"}}, fractions=[0.25, 1.0], tuning=tuning)
    quarter, whole = estimate(plan).arms
    assert quarter.steps * 4 == whole.steps
    tuned = 2 * (2000 + whole.steps / 2 + 4 * 10 + 3000)
    assert quarter.seconds == 2 * (2000 + quarter.steps + 1000 + 3000) + tuned
    assert whole.seconds == 2 * (2000 + whole.steps + 1000 + 3000)


def test_a_rehearsal_tries_each_part_of_a_run(tiny_plan: BuildPlan):
    plan = tiny_plan()
    arm = arms_of(plan)[1]
    rehearsal = Rehearsal(final_run(plan, arm, seed=1, learning_rate=0.1).recipe)
    found = measure(measured_recipe(plan, arm, steps=2), after=rehearsal.play)
    parts = (rehearsal.saving, rehearsal.validating_a_sample, rehearsal.scoring, found.setup_seconds)
    assert all(seconds > 0 for seconds in parts)
    assert rehearsal.peak_memory_bytes >= found.peak_memory_bytes


@pytest.mark.parametrize(
    ("changes", "evaluations"),
    [({}, 1), ({"before": True}, 2), ({"question_removed": True}, 2), ({"agreement_questions": 2}, 1.5)],
)
def test_every_evaluation_of_a_run_is_counted(
    tiny_plan: BuildPlan, tiny_settings, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], evaluations: float
):
    tiny_settings["recipe"]["evaluation"] |= changes  # of 4 questions
    monkeypatch.setattr(Rehearsal, "_seconds_a_question", lambda *_, **__: 10.0)
    plan = tiny_plan()
    arm = arms_of(plan)[0]
    rehearsal = Rehearsal(final_run(plan, arm, seed=1, learning_rate=0.1).recipe)
    measure(measured_recipe(plan, arm, steps=2), after=rehearsal.play)
    assert rehearsal.scoring == evaluations * 4 * 10.0


def test_an_estimate_without_the_weights_counts_the_runs_and_says_so(tiny_plan: BuildPlan, tiny_settings):
    recipe = tiny_settings["recipe"] | {"model": {"path": "nobody/has-this"}}
    found = estimate(tiny_plan(recipe=recipe))
    assert found.seconds is None
    assert found.summary() == (
        "4 runs to choose learning rates and 4 that count; no times: "
        "the weights of nobody/has-this are not on this machine yet"
    )
    assert [arm.steps for arm in found.arms] == [4, 4]
