"""Folders as runs and comparisons leave them, small and made from fixed numbers."""

import json
import math
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from moslora.data.everyday import everyday
from moslora.evaluation.scores import Accuracy
from moslora.records import (
    AdapterPictures,
    ArmResult,
    ComparisonRecord,
    Cost,
    Difference,
    EvaluationRecord,
    LayerPicture,
    Parameters,
    RunRecord,
    TaskResult,
    TuningResult,
)
from moslora.reports.page import write_report
from tests.judging.founded import found, judge
from tests.reports.pictured import write_pictured_run

BLOCKS, RANK, QUESTIONS = 8, 8, 60
KINDS = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
VERSIONS = {"python": "3.11.7", "torch": "2.13.0", "peft": "0.21.2", "moslora": "0.1.0"}
MACHINE: dict[str, Any] = {"cpu": "a processor", "cores": 2, "memory_bytes": 25_000_000_000, "accelerator": None}


def pictures(method: str, *, has_mixer: bool, seed: int = 0) -> AdapterPictures:
    """Layers whose mixers are an orthonormal-looking draw and whose singular values fall off evenly."""
    draw = random.Random(seed)
    layers = []
    for block in range(BLOCKS):
        for kind in KINDS:
            values = sorted((draw.uniform(0.5, 1) * 0.6**index for index in range(RANK)), reverse=True)
            mixer = [[draw.gauss(0, RANK**-0.5) for _ in range(RANK)] for _ in range(RANK)]
            layers.append(
                LayerPicture(
                    name=f"model.layers.{block}.{kind}",
                    rank=RANK,
                    update_norm=math.dist(values, [0] * RANK),
                    singular_values=values,
                    effective_rank=draw.uniform(3, 6),
                    mixer=mixer if has_mixer else None,
                    mixer_from_start=draw.uniform(0.02, 0.2) if has_mixer else None,
                    mixer_from_identity=draw.uniform(1.2, 1.5) if has_mixer else None,
                    mixer_from_orthogonal=draw.uniform(0.1, 0.4) if has_mixer else None,
                )
            )
    return AdapterPictures(method=method, layers=layers)


def answers(share: float, *, seed: int) -> list[dict[str, Any]]:
    """Answers to the first built-in questions, about the given share of them right."""
    draw = random.Random(seed)
    found = []
    for index, question in enumerate(everyday("test")[:QUESTIONS]):
        right = question["answer"]
        wrong = draw.choice([label for label in ("answer1", "answer2", "answer3", "answer4") if label != right])
        predicted = right if draw.random() < share else wrong
        found.append(
            {
                "index": index,
                "expected": right,
                "predicted": predicted,
                "is_correct": predicted == right,
                "kind": question["kind"],
                "text": None,
                "scores": None,
            }
        )
    return found


def write_run(
    folder: Path, *, method: str = "moslora", seed: int = 1, share: float = 0.7, task: str = "everyday"
) -> list[dict[str, Any]]:
    """A finished run; returns its answers."""
    (folder / "answers").mkdir(parents=True)
    given = {"before": answers(0.25, seed=99), "after": answers(share, seed=seed)}
    evaluations = []
    for when, rows in given.items():
        found = Accuracy(sum(row["is_correct"] for row in rows), len(rows))
        low, high = found.interval
        numbers = {"correct": found.correct, "total": found.total, "accuracy": found.value, "low": low, "high": high}
        evaluations.append(EvaluationRecord(task=task, when=when, scoring="log_probability", **numbers))
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "answers" / f"{task}-{when}-log_probability.jsonl").write_text(lines)
    RunRecord(
        status="finished",
        recipe={"name": "tiny", "seed": seed, "model": {"path": "smollm2"}, "adapter": {"method": method, "r": RANK}},
        seed=seed,
        versions=VERSIONS,
        machine=MACHINE,
        parameters=Parameters(trainable=3_356_160, total=137_871_168, mixer=38_400),
        wall_seconds={"train": 472.0},
        peak_memory_bytes=6_068_256_768,
        train_loss=0.19,
        steps=150,
        evaluations=evaluations,
    ).save(folder / "run.json")
    draw = random.Random(seed)
    with (folder / "metrics.jsonl").open("w") as stream:
        for step in range(10, 160, 10):
            loss = 0.05 + 1.5 * math.exp(-step / 30) * draw.uniform(0.9, 1.1) + (0.02 if method == "lora" else 0)
            stream.write(json.dumps({"step": step, "loss": loss, "learning_rate": 1e-3, "grad_norm": 0.2}) + "\n")
    pictures(method, has_mixer=method == "moslora", seed=seed).save(folder / "adapter.json")
    return given["after"]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    write_run(tmp_path / "demo")
    return tmp_path / "demo"


ARMS = {
    "lora": (0.60, 3_317_760, 0.91),
    "moslora": (0.68, 3_356_160, 0.93),
    "moslora-init-only": (0.63, 3_317_760, 0.90),
    "dora": (0.66, 3_400_000, 1.60),
    "lora 50%": (0.52, 3_317_760, 0.91),
    "moslora 50%": (0.57, 3_356_160, 0.93),
}


def comparison_record(
    *, seeds: tuple[int, ...] = (1, 2, 3), tasks: tuple[str, ...] = ("everyday",)
) -> ComparisonRecord:
    """Six arms, one of them failed at a seed, and one that cannot be run."""
    arms = []
    differences = []
    for number, (label, (mean, trainable, seconds)) in enumerate(ARMS.items()):
        named = [*tasks, "average"] if len(tasks) > 1 else [*tasks]
        found = {}
        for shift, task in enumerate(named):
            spread = {str(seed): mean - 0.02 * shift + 0.01 * (seed - 2) for seed in seeds}
            has_interval = len(seeds) > 1
            middle = sum(spread.values()) / len(spread)
            found[task] = TaskResult(
                mean=middle,
                low=middle - 0.025 if has_interval else None,
                high=middle + 0.025 if has_interval else None,
                per_seed=spread,
            )
        arms.append(
            ArmResult(
                arm=label,
                method=label.split()[0],
                rank=RANK,
                fraction=0.5 if "50%" in label else 1.0,
                learning_rate=1e-3,
                trainable=trainable,
                cost=Cost(
                    seconds_per_step=seconds, peak_memory_bytes=int(2e9 + 1e8 * number), trainable=trainable, steps=20
                ),
                tasks=found,
                runs={str(seed): f"runs/{label.replace(' ', '-').replace('%', '')}-seed{seed}" for seed in seeds},
                failed={"4": "training diverged (loss nan)"} if label == "dora" else {},
            )
        )
        baseline = "lora 50%" if "50%" in label else "lora"
        if label != baseline:
            for task in named:
                gap = mean - ARMS[baseline][0]
                differences.append(
                    Difference(
                        arm=label,
                        baseline=baseline,
                        task=task,
                        mean=gap,
                        low=gap - 0.04,
                        high=gap + 0.04,
                        p_value=0.01 if gap > 0.04 else 0.2,
                        p_adjusted=0.04 if gap > 0.04 else 0.4,
                        seeds=len(seeds),
                        verdict=f"better than {baseline} here" if gap > 0.04 else "no clear difference",
                    )
                )
    arms.append(ArmResult(arm="lokr", method="lokr", cannot="does not load beside 4-bit weights"))
    return ComparisonRecord(
        plan={"name": "table4-small", "baseline": "lora", "seeds": [*seeds], "recipe": {"model": {"path": "smollm2"}}},
        versions=VERSIONS,
        machine=MACHINE,
        baseline="lora",
        tasks=[*tasks],
        arms=arms,
        differences=differences,
        tuning=[
            TuningResult(arm="lora", learning_rate=rate, validation_loss=0.2, run=f"tuning/lora-lr{rate:g}")
            for rate in (3e-4, 1e-3)
        ],
        verdict="moslora is above lora on everyday by 8.0 points (95 % interval 4.0 to 12.0, 3 seeds).",
        notes=["Costs were measured on an idle machine."],
    )


def comparison_in(place: Path, **options: Any) -> Path:
    """Write a comparison and the runs of its first three arms; options go to its record."""
    folder = place / "comparison"
    folder.mkdir()
    record = comparison_record(**options)
    record.save(folder / "comparison.json")
    for arm in record.arms[:3]:
        for seed, run in arm.runs.items():
            write_run(folder / run, method=arm.method, seed=int(seed), share=ARMS[arm.arm][0])
    return folder


@pytest.fixture
def write_comparison(tmp_path: Path) -> Callable[..., Path]:
    """Write a comparison into the test's own folder."""
    return partial(comparison_in, tmp_path)


@pytest.fixture(scope="session")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a comparison of two tasks and a run."""
    place = tmp_path_factory.mktemp("page")
    write_run(place / "demo")
    write_report([comparison_in(place, tasks=("everyday", "arc-easy")), place / "demo"], place / "report.html")
    return place / "report.html"


@pytest.fixture(scope="session")
def pictured_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a run that answers about pictures."""
    place = tmp_path_factory.mktemp("pictured")
    write_pictured_run(place / "pictures")
    write_report([place / "pictures"], place / "report.html")
    return place / "report.html"


@pytest.fixture(scope="session")
def judged_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a judged study."""
    place = tmp_path_factory.mktemp("judged")
    study = found(place, pairs=14)
    judge(study, method="mixed")
    write_report([study], place / "report.html")
    return place / "report.html"
