"""How often procedures claim a difference where there is none, and how often they see one of 5 points.

    python benchmarks/null_simulation.py [--comparisons 2000]

Two methods answer the same questions with the same seeds. An answer is right if a latent number is above zero: the
method's level, the question's difficulty, what a method finds easy or hard in a question, what a seed does to both or
to one of them, what a seed does to a question, and logistic noise. No difference means none in expectation over new
seeds and new questions. Results: a table, and benchmarks/results/null_simulation.json. Takes about a minute.
"""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats
from scipy.stats import logistic

from moslora.comparison.statistics import LEVEL, paired_difference

OUTPUT = Path(__file__).parent / "results" / "null_simulation.json"
SEED_COUNTS = (2, 3, 5)
GAP = 0.05
RESAMPLES = 400


class Setting(NamedTuple):
    """Standard deviations of the latent parts; `noise` is the scale of the logistic noise."""

    name: str
    questions: int = 200
    accuracy: float = 0.6
    difficulty: float = 2.0
    method_question: float = 0.7
    seed: float = 0.1
    method_seed: float = 0.1
    seed_question: float = 0.5
    noise: float = 0.3
    tasks: int = 1


SETTINGS = [
    Setting("usual"),
    Setting("no seed variance", seed=0, method_seed=0),
    Setting("some seed variance", method_seed=0.2),
    Setting("more seed variance", method_seed=0.3, method_question=1.0),
    Setting("large seed variance", method_seed=0.5),
    Setting("seeds that fail", method_seed=2.0),
    Setting("questions alike to both methods", method_question=0),
    Setting("nothing but noise", method_question=0, seed=0, method_seed=0),
    Setting("questions that favour a method", method_question=1.5),
    Setting("the same, seeds alike", method_question=1.5, seed=0, method_seed=0, seed_question=0.05, noise=0.03),
    Setting("methods nearly the same", method_question=0.1, method_seed=0.02, noise=0.05, seed_question=0.1),
    Setting("easy or hopeless questions", difficulty=6.0),
    Setting("hard, 100 questions", accuracy=0.3, questions=100),
    Setting("easy, 100 questions", accuracy=0.9, questions=100),
    Setting("easy, 400 questions", accuracy=0.9, questions=400),
    Setting("easy, methods nearly the same", accuracy=0.9, method_question=0.2, method_seed=0.05, noise=0.1),
    Setting("average of 3 tasks", questions=100, tasks=3),
    Setting("average of 3, more seed variance", questions=100, tasks=3, method_seed=0.3),
]


def simulate(setting: Setting, *, seeds: int, comparisons: int, gap: float, rng: np.random.Generator) -> np.ndarray:
    """Differences of right answers, -1, 0 or 1: comparisons × tasks × seeds × questions."""
    shape = (comparisons, setting.tasks, seeds, setting.questions)

    def normal(deviation: float, *lengths: int) -> np.ndarray:
        return np.float32(deviation) * rng.standard_normal(lengths, dtype=np.float32) if deviation else np.float32(0)

    n, tasks, _, questions = shape
    shared = normal(setting.difficulty, n, tasks, 1, questions) + normal(setting.seed, n, 1, seeds, 1)
    shared = shared + normal(setting.seed_question, *shape)
    answers = []
    for level in levels(setting, gap, rng):
        own = normal(setting.method_question, n, tasks, 1, questions) + normal(setting.method_seed, n, 1, seeds, 1)
        uniform = rng.random(shape, dtype=np.float32).clip(1e-6, 1 - 1e-6)
        answers.append(shared + own + setting.noise * np.log(uniform / (1 - uniform)) + np.float32(level) > 0)
    return answers[0].astype(np.int8) - answers[1].astype(np.int8)


def levels(setting: Setting, gap: float, rng: np.random.Generator) -> tuple[float, float]:
    """The latent levels of the two methods that give the wanted accuracies over seeds and questions."""
    deviation = np.linalg.norm(setting[3:8])
    latent = deviation * rng.standard_normal(200_000) + logistic.rvs(
        scale=setting.noise, size=200_000, random_state=rng
    )
    return tuple(-np.quantile(latent, 1 - accuracy) for accuracy in (setting.accuracy + gap, setting.accuracy))


def chosen(differences: np.ndarray) -> np.ndarray:
    """Whether moslora's procedure claims a difference, for each comparison."""
    return np.array([paired_difference(list(tables)).p_value < LEVEL for tables in differences])


def paired_t(differences: np.ndarray) -> np.ndarray:
    """Whether the t-test of the seeds' means does."""
    seeds, means = differences.shape[2], differences.mean(axis=(1, 3))
    error = means.std(axis=1, ddof=1) / seeds**0.5
    return np.abs(means.mean(axis=1)) > error * stats.t.ppf(1 - LEVEL / 2, seeds - 1)


def satterthwaite(differences: np.ndarray) -> np.ndarray:
    """Whether the same variance with Satterthwaite's degrees of freedom does."""
    _, tasks, seeds, questions = differences.shape
    means = differences.mean(axis=(1, 3))
    by_seed = means.var(axis=1, ddof=1) / seeds
    centred = differences - differences.mean(axis=3, keepdims=True)
    by_question = centred.mean(axis=2, keepdims=True)
    unit = 1 / (tasks**2 * questions * (questions - 1))
    whole = (by_question**2).sum(axis=(1, 2, 3)) * unit
    rest = ((centred - by_question) ** 2).sum(axis=(1, 2, 3)) * unit / (seeds * (seeds - 1))
    variance = np.maximum(by_seed + np.maximum(whole - rest, 0), 1 / (tasks * questions**2))
    free = tasks * (questions - 1)
    spread = by_seed**2 / (seeds - 1) + whole**2 / free + rest**2 / (free * (seeds - 1))
    freedom = np.clip(variance**2 / np.maximum(spread, 1e-12), seeds - 1, free)
    return np.abs(means.mean(axis=1)) > np.sqrt(variance) * stats.t.ppf(1 - LEVEL / 2, freedom)


def bootstrap(differences: np.ndarray) -> np.ndarray:
    """Whether resampled seeds and questions do, with deviations stretched by sqrt(seeds / (seeds - 1))."""
    n, tasks, seeds, questions = differences.shape
    rng = np.random.default_rng(0)
    seed_counts = rng.multinomial(seeds, [1 / seeds] * seeds, size=RESAMPLES).astype(np.float32) / seeds
    resampled = np.zeros((n, RESAMPLES), dtype=np.float32)
    for task in range(tasks):
        counts = rng.multinomial(questions, [1 / questions] * questions, size=RESAMPLES).astype(np.float32) / questions
        by_seed = differences[:, task].reshape(-1, questions).astype(np.float32) @ counts.T
        resampled += np.einsum("nsb,bs->nb", by_seed.reshape(n, seeds, RESAMPLES), seed_counts) / tasks
    means = differences.mean(axis=(1, 2, 3))
    deviations = (resampled - means[:, None]) * (seeds / (seeds - 1)) ** 0.5
    low, high = np.quantile(deviations, [LEVEL / 2, 1 - LEVEL / 2], axis=1)
    return (means - high > 0) | (means - low < 0)


PROCEDURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "chosen": chosen,
    "paired t": paired_t,
    "Satterthwaite": satterthwaite,
    "bootstrap": bootstrap,
}


def claims(
    setting: Setting, *, seeds: int, comparisons: int, gap: float = 0.0, random_seed: int = 0
) -> dict[str, float]:
    """The share of comparisons in which each procedure claims a difference."""
    rng = np.random.default_rng([random_seed, seeds])
    differences = simulate(setting, seeds=seeds, comparisons=comparisons, gap=gap, rng=rng)
    return {name: float(procedure(differences).mean()) for name, procedure in PROCEDURES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comparisons", type=int, default=2000)
    comparisons = parser.parse_args().comparisons
    rows = []
    for seeds in SEED_COUNTS:
        table = Table("setting", *PROCEDURES, title=f"{seeds} seeds: % false claims / % power for {GAP:.0%}")
        for setting in SETTINGS:
            false = claims(setting, seeds=seeds, comparisons=comparisons)
            power = claims(setting, seeds=seeds, comparisons=comparisons // 2, gap=GAP, random_seed=1)
            rows.append({"seeds": seeds, "setting": setting._asdict(), "false_claims": false, "power": power})
            table.add_row(setting.name, *(f"{100 * false[name]:.1f} / {100 * power[name]:.0f}" for name in PROCEDURES))
        Console(width=110).print(table)
    found = {"date": datetime.now(UTC).date().isoformat(), "comparisons": comparisons, "gap": GAP, "level": LEVEL}
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps({**found, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
