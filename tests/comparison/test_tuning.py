from collections.abc import Callable
from pathlib import Path

from moslora.comparison.matrix import Run, arms_of, tuning_runs
from moslora.comparison.plan import Plan
from moslora.comparison.tuning import Choice, choose, tuning_notes, tuning_results
from moslora.records import RunRecord

RATES = {"tuning": {"learning_rates": [0.01, 0.1, 1.0], "validation_samples": 4}}
BuildPlan = Callable[..., Plan]


def leave(run: Run, folder: Path, *, loss: float | None = None, failure: str = "") -> None:
    """What a finished or failed tuning run leaves on the disk."""
    place = folder / run.folder
    place.mkdir(parents=True)
    if failure:
        place.with_name(f"{place.name}.failed").write_text(f"{failure}\n")
        return
    record = RunRecord(recipe=run.recipe.to_dict(), seed=0, status="finished", validation_loss=loss)
    record.save(place / "run.json")


def test_the_lowest_loss_wins_and_of_equal_ones_the_lower_rate(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs[:3], [0.5, 0.4, 0.4], strict=True):
        leave(run, tmp_path, loss=loss)
    assert choose(plan, lora, runs, folder=tmp_path) == Choice(rate=0.1)
    assert [result.is_chosen for result in tuning_results(plan, runs, folder=tmp_path)] == [False, True] + 4 * [False]
    assert tuning_notes(plan, runs, folder=tmp_path) == []


def test_a_loss_that_is_no_number_is_the_worst_and_an_edge_is_told_of(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs[:2], [9.0, float("nan")], strict=True):
        leave(run, tmp_path, loss=loss)
    leave(runs[2], tmp_path, failure="training diverged (loss nan): lower it")
    assert choose(plan, lora, runs, folder=tmp_path) == Choice(rate=0.01)
    assert [result.validation_loss for result in tuning_results(plan, runs, folder=tmp_path)][:3] == [9.0, None, None]
    assert tuning_notes(plan, runs, folder=tmp_path) == [
        "lora diverged at the learning rate 0.1",
        "lora diverged at the learning rate 1",
        "best at an edge of the learning rates tried, so a wider grid may do better: lora (lowest, 0.01)",
    ]


def test_there_is_no_choice_before_every_rate_was_tried(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    leave(runs[0], tmp_path, loss=0.5)
    leave(runs[1], tmp_path, failure="the disk was full")
    found = choose(plan, lora, runs, folder=tmp_path)
    assert found == Choice(missing="learning rate 0.1 failed (the disk was full), learning rate 1 not tried yet")


def test_an_arm_that_fails_at_every_rate_cannot_be_compared(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run in runs[:3]:
        leave(run, tmp_path, failure="no such layer")
    assert choose(plan, lora, runs, folder=tmp_path) == Choice(cannot="no such layer")
