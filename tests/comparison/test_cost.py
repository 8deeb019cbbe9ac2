from collections.abc import Callable
from pathlib import Path

import pytest

from moslora.comparison.compare import collect
from moslora.comparison.cost import measure, measure_costs, measured_recipe, read_costs
from moslora.comparison.estimate import Scoring, estimate
from moslora.comparison.matrix import arms_of
from moslora.comparison.plan import Plan

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


def test_an_estimate_tunes_on_all_samples_and_counts_the_steps_of_each_share(
    tiny_plan: BuildPlan, tiny_settings, monkeypatch
):
    monkeypatch.setattr(Scoring, "time", lambda *_: None)
    tiny_settings["recipe"]["training"] |= {"max_steps": None, "epochs": 2}
    quarter, whole = estimate(tiny_plan(arms={"lora": {"method": "lora"}}, fractions=[0.25, 1.0])).arms
    assert quarter.steps * 4 == whole.steps
    assert quarter.seconds == pytest.approx((2 * quarter.steps + 2 * whole.steps) * quarter.seconds_per_step)
    assert whole.seconds == pytest.approx(2 * whole.steps * whole.seconds_per_step)


def test_an_estimate_scores_every_run_that_counts(tiny_plan: BuildPlan, monkeypatch):
    def time(scoring: Scoring, *_: object) -> None:
        scoring.seconds = 1000.0

    monkeypatch.setattr(Scoring, "time", time)
    lora, moslora = estimate(tiny_plan(seeds_of={"moslora": [1, 2, 3]})).arms
    assert 2000 < lora.seconds < 2500
    assert 3000 < moslora.seconds < 3500


def test_an_estimate_without_the_weights_counts_the_runs_and_says_so(tiny_plan: BuildPlan, tiny_settings):
    recipe = tiny_settings["recipe"] | {"model": {"path": "nobody/has-this"}}
    found = estimate(tiny_plan(recipe=recipe))
    assert found.seconds is None
    assert found.summary() == (
        "4 runs to choose learning rates and 4 that count; no times: "
        "the weights of nobody/has-this are not on this machine yet"
    )
    assert [arm.steps for arm in found.arms] == [4, 4]
