"""Seeds at which training diverged are part of an arm's result: left out, the lucky ones would speak for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moslora.comparison.compare import collect, run_comparison
from moslora.comparison.execution import keep_failure, outcome
from moslora.comparison.matrix import arms_of, final_run
from moslora.comparison.plan import Plan
from moslora.comparison.tables import markdown
from moslora.errors import ConfigError, DivergedError
from moslora.evaluation.scores import Answer
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder
from moslora.runs.scoring import answers_path, save_answers

BuildPlan = Callable[..., Plan]
ONE_RATE = {"learning_rates": [0.1], "validation_samples": 4}


def leave(plan: Plan, folder: Path, *, arm: str, seed: int, right: int | None) -> None:
    """What a run with so many right of 20 answers leaves on the disk; None: training diverged."""
    found = next(one for one in arms_of(plan) if one.label == arm)
    run = final_run(plan, found, seed=seed, learning_rate=0.1)
    place = folder / run.folder
    place.mkdir(parents=True)
    status = "failed" if right is None else "finished"
    RunRecord(recipe=run.recipe.to_dict(), seed=seed, status=status).save(place / "run.json")
    if right is None:
        keep_failure(RunFolder(place), DivergedError("training diverged (loss nan): lower it"))
        return
    answers = [Answer(n, "answer1", None, n < right, options=4) for n in range(20)]
    save_answers(answers_path(place / "answers", task="everyday", when="after", scoring="log_probability"), answers)


@pytest.fixture
def plan(tiny_plan: BuildPlan) -> Plan:
    return tiny_plan(tuning=ONE_RATE, seeds=[1, 2, 3])


def test_a_diverged_seed_counts_as_guessing_and_is_told(plan: Plan, tmp_path: Path):
    for seed in (1, 2, 3):
        leave(plan, tmp_path, arm="lora", seed=seed, right=18)
        leave(plan, tmp_path, arm="moslora", seed=seed, right=None if seed == 2 else 19)
    record = collect(plan, tmp_path)
    _, moslora = record.arms
    assert moslora.tasks["everyday"].per_seed == {"1": 0.95, "2": 0.25, "3": 0.95}
    assert (moslora.diverged, moslora.failed, moslora.cannot) == (["2"], {}, None)
    assert record.is_complete
    difference = next(found for found in record.differences if found.task == "everyday")
    assert (difference.seeds, difference.mean) == (3, pytest.approx(-0.55 / 3))
    assert record.verdict.endswith("; diverged, and counted as guessing: moslora (seed 2).")
    assert "| 3 (1 diverged) |" in markdown(record)
    assert "- moslora: training diverged with seed 2, which counts as guessing\n" in markdown(record)


def test_an_arm_that_diverged_with_every_seed_is_compared_too(plan: Plan, tmp_path: Path):
    for seed in (1, 2, 3):
        leave(plan, tmp_path, arm="lora", seed=seed, right=18)
        leave(plan, tmp_path, arm="moslora", seed=seed, right=None)
    record = collect(plan, tmp_path)
    assert record.arms[1].tasks["everyday"].mean == 0.25
    assert "moslora is worse than lora by 65.0 points" in record.verdict
    assert record.verdict.endswith("counted as guessing: moslora (seed 1, 2 and 3).")


def test_a_seed_that_diverged_is_not_trained_again(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning=ONE_RATE, seeds=[1], arms={"lora": {"method": "lora"}})
    leave(plan, tmp_path, arm="lora", seed=1, right=None)
    lines: list[str] = []
    record = run_comparison(plan, tmp_path, report=lines.append)
    assert lines == ["1 of 1 runs were finished before"]
    assert (record.arms[0].diverged, record.arms[0].tasks) == (["1"], {})


@pytest.mark.parametrize(
    ("text", "state"), [("training diverged (loss nan): lower it\n", "diverged"), ("no room: free some\n", "failed")]
)
def test_a_failure_that_a_former_version_wrote_as_its_reason_alone_is_read(
    text: str, state: str, tiny_plan: BuildPlan, tmp_path: Path
):
    plan = tiny_plan(tuning=ONE_RATE)
    run = final_run(plan, arms_of(plan)[0], seed=1, learning_rate=0.1)
    path = (tmp_path / run.folder).with_name(f"{Path(run.folder).name}.failed")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = outcome(run, tmp_path)
    assert (found.state, found.reason) == (state, text.strip())
    reason = ConfigError("data.path: the folder 'training diverged' is not there")
    keep_failure(RunFolder(tmp_path / run.folder), reason)
    assert (outcome(run, tmp_path).state, outcome(run, tmp_path).reason) == ("failed", str(reason))
