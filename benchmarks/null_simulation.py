"""How often differences are claimed where there are none, and seen where they are; how often intervals hold the truth.

    python -m benchmarks.null_simulation [--comparisons 2000]

Two methods answer the same questions with the same seeds. An answer is right if a latent number is above zero: the
method's level, the question's difficulty (in part shared by a group of questions), what a method finds easy or hard in
a question, what a seed does to both or to one of them, what a seed does to a question, and logistic noise. No
difference means none in expectation over new seeds and new questions. Three parts: comparisons at given rates, the
same with the tuning of learning rates inside, and single arms (guessing, accuracy, Wilson's interval of one run).
Results: tables, and benchmarks/results/null_simulation.json. Takes about four minutes of one core.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from benchmarks.tuning_simulation import TUNINGS, tuned
from moslora.comparison.statistics import is_above_chance
from moslora.estimation import LEVEL, Estimate, estimate, table
from moslora.evaluation.scores import Answer, accuracy

OUTPUT = Path(__file__).parent / "results" / "null_simulation.json"
SEED_COUNTS = (2, 3, 5)
GAP = 0.05


class Setting(NamedTuple):
    """Standard deviations of the latent parts; `noise` is the scale of the logistic noise.

    Questions come in groups of `group` that share the part `of_group` of the variance of what questions do.
    """

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
    group: int = 1
    of_group: float = 0.0


STUDY = {"questions": 384, "accuracy": 0.84, "group": 4, "of_group": 0.3}
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
    Setting("the study: 96 groups of 4", **STUDY),
    Setting("the study, more seed variance", **STUDY, method_seed=0.3),
]
USUAL = SETTINGS[0]


class Found(NamedTuple):
    """What a procedure says of each comparison."""

    is_claimed: np.ndarray
    low: np.ndarray
    high: np.ndarray


def simulate(
    setting: Setting, *, seeds: int, comparisons: int, levels: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Right answers, 0 or 1, of methods of the given latent `levels` (comparisons × methods, or methods).

    Shape: methods × comparisons × tasks × seeds × questions.
    """
    n, questions = comparisons, setting.questions
    shape = (n, setting.tasks, seeds, questions)

    def normal(deviation: float, *lengths: int) -> np.ndarray:
        return np.float32(deviation) * rng.standard_normal(lengths, dtype=np.float32) if deviation else np.float32(0)

    def of_questions(deviation: float) -> np.ndarray:
        groups = normal(deviation * setting.of_group**0.5, n, setting.tasks, 1, questions // setting.group)
        own = normal(deviation * (1 - setting.of_group) ** 0.5, n, setting.tasks, 1, questions)
        return own + (np.repeat(groups, setting.group, axis=-1) if setting.of_group else groups)

    shared = of_questions(setting.difficulty) + normal(setting.seed, n, 1, seeds, 1)
    shared = shared + normal(setting.seed_question, *shape)
    levels = np.broadcast_to(levels, (n, np.shape(levels)[-1])).astype(np.float32)
    answers = []
    for level in levels.T:
        own = of_questions(setting.method_question) + normal(setting.method_seed, n, 1, seeds, 1)
        uniform = rng.random(shape, dtype=np.float32).clip(1e-6, 1 - 1e-6)
        noise = np.float32(setting.noise) * np.log(uniform / (1 - uniform))
        answers.append(shared + own + noise + level[:, None, None, None] > 0)
    return np.array(answers, dtype=np.int8)


@cache
def latent(setting: Setting) -> np.ndarray:
    """Many draws of the sum of all latent parts but the level, in order."""
    rng = np.random.default_rng(7)
    deviation = np.linalg.norm(setting[3:8])
    noise = stats.logistic.rvs(scale=setting.noise, size=1_000_000, random_state=rng)
    return np.sort(deviation * rng.standard_normal(1_000_000) + noise)


def level_of(setting: Setting, share: float) -> float:
    """The latent level of a method that is right in such a share, over seeds and questions."""
    return -float(np.quantile(latent(setting), 1 - share))


def share_of(setting: Setting, levels: np.ndarray) -> np.ndarray:
    """The share that methods of such levels get right, over seeds and questions."""
    return 1 - np.searchsorted(latent(setting), -levels) / len(latent(setting))


def groups_of(setting: Setting) -> list[int] | None:
    """The group of each question; None where each stands alone."""
    return None if setting.group == 1 else [number // setting.group for number in range(setting.questions)]


def chosen(differences: np.ndarray, setting: Setting) -> Found:
    """What moslora says."""
    found = [estimate([table(one, groups_of(setting)) for one in tables]) for tables in differences]
    return _found(found)


def paired_t(differences: np.ndarray, _setting: Setting) -> Found:
    """What the t-test of the seeds' means says."""
    seeds, means = differences.shape[2], differences.mean(axis=(1, 3))
    half = means.std(axis=1, ddof=1) / seeds**0.5 * stats.t.ppf(1 - LEVEL / 2, seeds - 1)
    return _around(means.mean(axis=1), half)


def satterthwaite(differences: np.ndarray, setting: Setting) -> Found:
    """What the same variance with Satterthwaite's degrees of freedom says."""
    _, tasks, seeds, questions = differences.shape
    units = questions // setting.group
    differences = differences.reshape(*differences.shape[:3], units, setting.group).mean(axis=4)
    means = differences.mean(axis=(1, 3))
    by_seed = means.var(axis=1, ddof=1) / seeds
    centred = differences - differences.mean(axis=3, keepdims=True)
    by_unit = centred.mean(axis=2, keepdims=True)
    share = 1 / (tasks**2 * units * (units - 1))
    whole = (by_unit**2).sum(axis=(1, 2, 3)) * share
    rest = ((centred - by_unit) ** 2).sum(axis=(1, 2, 3)) * share / (seeds * (seeds - 1))
    variance = np.maximum(by_seed + np.maximum(whole - rest, 0), 1 / (tasks * questions**2))
    free = tasks * (units - 1)
    spread = by_seed**2 / (seeds - 1) + whole**2 / free + rest**2 / (free * (seeds - 1))
    freedom = np.clip(variance**2 / np.maximum(spread, 1e-12), seeds - 1, free)
    return _around(means.mean(axis=1), np.sqrt(variance) * stats.t.ppf(1 - LEVEL / 2, freedom))


PROCEDURES: dict[str, Callable[[np.ndarray, Setting], Found]] = {
    "chosen": chosen,
    "paired t": paired_t,
    "Satterthwaite": satterthwaite,
}


def at_given_rates(setting: Setting, *, seeds: int, comparisons: int) -> dict[str, Any]:
    """False claims and coverage without a difference, power for `GAP`, by procedure."""
    rows: dict[str, Any] = {
        "seeds": seeds,
        "setting": setting._asdict(),
        "false_claims": {},
        "coverage": {},
        "power": {},
    }
    for gap in (0.0, GAP):
        rng = np.random.default_rng([seeds, int(100 * gap)])
        levels = np.array([level_of(setting, setting.accuracy + gap), level_of(setting, setting.accuracy)])
        first, second = simulate(setting, seeds=seeds, comparisons=comparisons, levels=levels, rng=rng)
        for name, procedure in PROCEDURES.items():
            found = procedure(first - second, setting)
            rows["power" if gap else "false_claims"][name] = float(found.is_claimed.mean())
            if gap:
                rows["coverage"][name] = float(((found.low <= gap) & (gap <= found.high)).mean())
    return rows


def with_tuning(*, seeds: int, comparisons: int) -> Iterable[dict[str, Any]]:
    """False claims where methods are equally good at their best rates, and the rates are chosen on noisy losses."""
    for number, tuning in enumerate(TUNINGS):
        rng = np.random.default_rng([seeds, 1000 + number])
        runs = tuned(tuning, comparisons=comparisons, level=level_of(USUAL, USUAL.accuracy), rng=rng)
        first, second = simulate(USUAL, seeds=seeds, comparisons=comparisons, levels=runs.levels, rng=rng)
        found = chosen(first - second, USUAL)
        first_share, second_share = share_of(USUAL, runs.levels).T
        truth = first_share - second_share
        yield {
            "seeds": seeds,
            "setting": tuning._asdict(),
            "false_claims": float(found.is_claimed.mean()),
            "without_a_doubt_said": float((found.is_claimed & ~runs.is_doubted).mean()),
            "doubted": float(runs.is_doubted.mean()),
            "covers_the_difference_at_these_rates": float(((found.low <= truth) & (truth <= found.high)).mean()),
        }


def guessing(*, seeds: int, comparisons: int) -> dict[str, Any]:
    """How often arms that guess are said to do better, by how alike their seeds guess; and arms that do not guess."""
    rng = np.random.default_rng([seeds, 2])
    row: dict[str, Any] = {"seeds": seeds, "questions": 384, "options": 4, "false_claims": {}, "seen": {}}
    for agreement in (0.0, 0.9, 0.99, 1.0):
        key = rng.integers(0, 4, (comparisons, 1, 384))
        own = rng.integers(0, 4, (comparisons, seeds, 384))
        is_habit = rng.random(own.shape) < agreement
        right = np.where(is_habit, 0, own) == key
        row["false_claims"][f"{agreement:g}"] = float(np.mean([is_above_chance([*one], 0.25) for one in right]))
    for share, deviation in ((0.3, 0.02), (0.4, 0.03), (0.6, 0.05)):
        levels = np.clip(share + deviation * rng.standard_normal((comparisons, seeds, 1)), 0, 1)
        right = rng.random((comparisons, seeds, 384)) < levels
        row["seen"][f"{share:g}"] = float(np.mean([is_above_chance([*one], 0.25) for one in right]))
    return row


def accuracies(setting: Setting, *, seeds: int, comparisons: int) -> dict[str, Any]:
    """How often an arm's interval holds its accuracy; with one seed that of Wilson, where seeds do nothing."""
    if seeds == 1:
        setting = setting._replace(seed=0.0, method_seed=0.0)
    rng = np.random.default_rng([seeds, 3])
    levels = np.array([level_of(setting, setting.accuracy)])
    (right,) = simulate(setting, seeds=seeds, comparisons=comparisons, levels=levels, rng=rng)
    groups = groups_of(setting)
    if seeds > 1:
        found = _found([estimate([table(one, groups) for one in tables]) for tables in right])
        low, high = found.low, found.high
    else:
        low, high = np.array([_wilson(one[0, 0], groups) for one in right]).T
    covered = (low <= setting.accuracy) & (setting.accuracy <= high)
    return {
        "seeds": seeds,
        "setting": setting.name,
        "coverage": float(covered.mean()),
        "median_width": float(np.median(np.minimum(high, 1) - np.maximum(low, 0))),
    }


def _wilson(right: np.ndarray, groups: list[int] | None) -> tuple[float, float]:
    answers = [
        Answer(index, "a", None, bool(one), group=None if groups is None else str(groups[index]))
        for index, one in enumerate(right)
    ]
    return accuracy(answers).interval


def _found(estimates: list[Estimate]) -> Found:
    _, low, high, p_value = np.array(estimates).T
    return Found(p_value < LEVEL, low, high)


def _around(mean: np.ndarray, half: np.ndarray) -> Found:
    return Found(np.abs(mean) > half, mean - half, mean + half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comparisons", type=int, default=2000)
    count = parser.parse_args().comparisons
    console = Console(width=110)
    result: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "comparisons": count}
    result |= {"gap": GAP, "level": LEVEL, "rows": [], "tuning": [], "guessing": [], "accuracy": []}
    for seeds in SEED_COUNTS:
        shown = Table("setting", *PROCEDURES, title=f"{seeds} seeds: % false claims / coverage / power for {GAP:.0%}")
        for setting in SETTINGS:
            row = at_given_rates(setting, seeds=seeds, comparisons=count)
            result["rows"].append(row)
            parts = [[100 * row[part][name] for part in ("false_claims", "coverage", "power")] for name in PROCEDURES]
            shown.add_row(setting.name, *(f"{a:.1f} / {b:.1f} / {c:.0f}" for a, b, c in parts))
        console.print(shown)
        result["tuning"] += with_tuning(seeds=seeds, comparisons=count)
    for seeds in (1, *SEED_COUNTS):
        result["guessing"].append(guessing(seeds=seeds, comparisons=count))
        result["accuracy"] += [
            accuracies(setting, seeds=seeds, comparisons=count) for setting in SETTINGS if setting.tasks == 1
        ]
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
