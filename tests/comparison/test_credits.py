"""Questions in every order, soft accuracy and pairs on a picture go through the same comparison as right and wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from moslora.comparison.compare import collect
from moslora.comparison.execution import keep_failure
from moslora.comparison.matrix import arms_of, final_run
from moslora.comparison.plan import Plan
from moslora.errors import DivergedError
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.scores import Answer
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder
from moslora.runs.scoring import answers_path, save_answers

BuildPlan = Callable[..., Plan]
ONE_RATE = {"learning_rates": [0.1], "validation_samples": 4}
SCORING = "log_probability"


def circular(share: float, draw: np.random.Generator) -> list[Answer]:
    """60 questions, each with its four options in four orders: right only if all four answers are."""
    right = np.repeat(draw.random(60) < share, 4) & (draw.random(240) < 0.95)
    return [Answer(n, "a", "a", bool(one), unit=str(n // 4), options=4) for n, one in enumerate(right)]


def soft(share: float, draw: np.random.Generator) -> list[Answer]:
    """60 questions, each worth what so many annotators agree on."""
    credits = draw.choice([0, 0.3, 0.6, 0.9, 1], 60, p=[1 - share, *[share / 4] * 4]).tolist()
    return [Answer(n, "a", "a", credit == 1, credit=credit, step=0.1) for n, credit in enumerate(credits)]


def pairs(share: float, draw: np.random.Generator) -> list[Answer]:
    """60 pictures with two questions each, 10 of one kind and 50 of another, which count alike."""
    right = draw.random((60, 2)) < share
    kinds = ["ocr" if picture < 10 else "count" for picture in range(60)]
    weights = {"ocr": 1 / 10, "count": 1 / 50}
    return [
        Answer(
            2 * picture + n,
            "yes",
            "yes",
            bool(right[picture, n]),
            kind=kind,
            options=2,
            unit=str(picture),
            unit_rule="mean_and_all",
            weight=weights[kind],
        )
        for picture, kind in enumerate(kinds)
        for n in (0, 1)
    ]


def leave(plan: Plan, folder: Path, answers: Sequence[Answer], *, arm: str, seed: int, rule: str = "a_rule") -> float:
    """What a run with these answers leaves on the disk, or one that diverged without any; its accuracy."""
    run = final_run(plan, next(one for one in arms_of(plan) if one.label == arm), seed=seed, learning_rate=0.1)
    place = folder / run.folder
    place.mkdir(parents=True)
    record = RunRecord(recipe=run.recipe.to_dict(), seed=seed, status="finished" if answers else "failed")
    if answers:
        asked = {"task": "everyday", "when": "after", "scoring": SCORING, "prompt": "plain", "wall_seconds": 1.0}
        record.evaluations = [evaluation_record(answers, **asked, rule=rule)]
        path = answers_path(place / "answers", task="everyday", when="after", scoring=SCORING)
        save_answers(path, answers)
    else:
        keep_failure(RunFolder(place), DivergedError("training diverged (loss nan): lower it"))
    record.save(place / "run.json")
    return record.evaluations[0].accuracy if answers else np.nan


@pytest.mark.parametrize(
    ("answers", "note"),
    [
        (circular, "accuracy is the share right of 60 units of 240 answers, by the rule a_rule"),
        (soft, "accuracy is the mean credit (0 to 1) of 60 questions, by the rule a_rule"),
        (pairs, "accuracy is the mean credit (0 to 1) of 60 units of 120 answers, by the rule a_rule"),
    ],
)
def test_a_better_arm_is_shown_whatever_its_answers_are_worth(
    tiny_plan: BuildPlan, tmp_path: Path, answers: Callable[..., list[Answer]], note: str
):
    plan, draw = tiny_plan(tuning=ONE_RATE, seeds=[1, 2, 3]), np.random.default_rng(0)
    expected = {
        arm: [leave(plan, tmp_path, answers(share, draw), arm=arm, seed=seed) for seed in (1, 2, 3)]
        for arm, share in (("lora", 0.3), ("moslora", 0.9))
    }
    record = collect(plan, tmp_path)
    found = {row.arm: row.tasks["everyday"] for row in record.arms}
    assert {arm: [*one.per_seed.values()] for arm, one in found.items()} == {
        arm: pytest.approx(values) for arm, values in expected.items()
    }
    difference = next(one for one in record.differences if one.task == "everyday")
    assert difference.mean == pytest.approx(np.mean(expected["moslora"]) - np.mean(expected["lora"]))
    assert difference.verdict.startswith("better than lora by ")
    assert f"- everyday: {note}.\n" in (tmp_path / "table.md").read_text()


def test_a_seed_that_diverged_gets_of_each_unit_what_guessing_gets(tiny_plan: BuildPlan, tmp_path: Path):
    plan, draw = tiny_plan(tuning=ONE_RATE, seeds=[1, 2]), np.random.default_rng(0)
    for seed in (1, 2):
        leave(plan, tmp_path, pairs(0.9, draw), arm="lora", seed=seed)
        leave(plan, tmp_path, pairs(0.9, draw) if seed == 1 else [], arm="moslora", seed=seed)
    record = collect(plan, tmp_path)
    assert record.arms[1].tasks["everyday"].per_seed["2"] == pytest.approx(0.375)
    assert record.chance == {"everyday": pytest.approx(0.375)}
    assert "- Guessing would get 37.5% of the credit of everyday.\n" in (tmp_path / "table.md").read_text()
