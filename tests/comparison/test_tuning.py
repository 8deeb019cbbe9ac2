import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from moslora.comparison.execution import keep_failure
from moslora.comparison.matrix import Run, arms_of, final_run, tuning_runs
from moslora.comparison.plan import Plan
from moslora.comparison.tuning import Choice, choose, doubts_of, tuning_notes, tuning_results
from moslora.errors import CheckpointError, ConfigError, DivergedError
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder

RATES = {"tuning": {"learning_rates": [0.01, 0.1, 1.0], "validation_samples": 4}}
UNKNOWN = "not known, as runs kept no losses by sample: whether rates are told apart for lora"
BuildPlan = Callable[..., Plan]


def leave(run: Run, folder: Path, *, loss: float | None = None, failure: Exception | None = None) -> None:
    """What a finished or failed tuning run leaves on the disk."""
    place = folder / run.folder
    place.mkdir(parents=True)
    if failure:
        keep_failure(RunFolder(place), failure)
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
    assert tuning_notes(plan, runs, folder=tmp_path) == [UNKNOWN]
    for run in runs[:3]:
        leave_losses(run, tmp_path, [0.5, 0.4])
    assert tuning_notes(plan, runs, folder=tmp_path) == []


def test_a_loss_that_is_no_number_is_the_worst_and_an_edge_is_told_of(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs[:2], [9.0, float("nan")], strict=True):
        leave(run, tmp_path, loss=loss)
    leave(runs[2], tmp_path, failure=DivergedError("training diverged (loss nan): lower it"))
    assert choose(plan, lora, runs, folder=tmp_path) == Choice(rate=0.01)
    assert [result.validation_loss for result in tuning_results(plan, runs, folder=tmp_path)][:3] == [9.0, None, None]
    assert tuning_notes(plan, runs, folder=tmp_path) == [
        "lora diverged at the learning rate 0.1",
        "lora diverged at the learning rate 1",
        "best at an edge of the learning rates tried, so a wider grid may do better: lora (lowest, 0.01)",
        UNKNOWN,
    ]


def test_there_is_no_choice_before_every_rate_was_tried(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    leave(runs[0], tmp_path, loss=0.5)
    leave(runs[1], tmp_path, failure=ConfigError("the disk was full"))
    found = choose(plan, lora, runs, folder=tmp_path)
    assert found == Choice(missing="learning rate 0.1 failed (the disk was full), learning rate 1 not tried yet")


def test_an_arm_that_fails_at_every_rate_cannot_be_compared(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run in runs[:3]:
        leave(run, tmp_path, failure=ConfigError("no such layer"))
    assert choose(plan, lora, runs, folder=tmp_path) == Choice(cannot="no such layer")


def leave_losses(run: Run, folder: Path, losses: Sequence[float], *, tokens: Sequence[int] | None = None) -> None:
    lines = [{"loss": loss, "tokens": tokens[n] if tokens else 3, "group": None} for n, loss in enumerate(losses)]
    (folder / run.folder / "validation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_rates_whose_losses_are_not_told_apart_and_rates_at_an_edge_are_in_doubt(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, moslora = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs, [0.50, 0.49, 0.9, 0.7, 0.8, 0.9], strict=True):
        leave(run, tmp_path, loss=loss)
    alike = [0.50 + 0.1 * (-1) ** number for number in range(20)], [0.49 + 0.1 * (-1) ** (n // 2) for n in range(20)]
    for run, losses in zip(runs[:3], [*alike, [0.9] * 20], strict=True):
        leave_losses(run, tmp_path, losses)
    found = doubts_of(plan, lora, runs, folder=tmp_path)
    assert found == ["0.1 is not told apart from 0.01 by the validation samples"]
    assert doubts_of(plan, moslora, runs, folder=tmp_path) == ["0.01 is the lowest rate tried"]


def test_losses_are_weighed_by_their_tokens(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    tokens = [100] * 10 + [1] * 10  # short samples, which tell little, cannot outweigh the long ones
    found = [0.5] * 10 + [5.0] * 10, [0.4] * 10 + [3.5, 6.5] * 5, [0.9] * 20
    for run, loss, losses in zip(runs[:3], [0.5, 0.4, 0.9], found, strict=True):
        leave(run, tmp_path, loss=loss)
        leave_losses(run, tmp_path, losses, tokens=tokens)
    assert doubts_of(plan, lora, runs, folder=tmp_path) == []


def test_a_rate_that_diverged_is_told_apart(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs[:3], [0.5, 0.4, float("nan")], strict=True):
        leave(run, tmp_path, loss=loss)
        leave_losses(run, tmp_path, [loss] * 20)
    assert doubts_of(plan, lora, runs, folder=tmp_path) == []


def test_damaged_losses_are_refused(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(**RATES)
    lora, _ = arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run in runs[:3]:
        leave(run, tmp_path, loss=0.5)
    (tmp_path / runs[0].folder / "validation.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match=r"cannot read the losses in .*validation.jsonl: KeyError\('loss'\); run"):
        doubts_of(plan, lora, runs, folder=tmp_path)


def test_a_plan_tunes_with_all_steps_unless_it_says_otherwise(tiny_plan: BuildPlan):
    plan = tiny_plan()
    final = final_run(plan, arms_of(plan)[0], seed=1, learning_rate=0.1)
    assert tuning_runs(plan, arms_of(plan))[0].recipe.training.max_steps == final.recipe.training.max_steps
