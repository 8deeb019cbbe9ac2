"""Held-out samples in a comparison: each arm's mean loss, and its difference to the baseline; lower is better.

A loss is not an accuracy: it has tables of its own, and no average over tasks holds it. The variance model is that of
the accuracies, for new seeds and new samples, of which each counts by its tokens.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moslora.comparison.statistics import Questions
from moslora.comparison.verdict import NO_DOUBTS, Doubts, of_loss, of_loss_of_one_seed
from moslora.errors import CheckpointError
from moslora.estimation import estimate, holm, p_of_no_difference
from moslora.evaluation.answers import SampleAnswer
from moslora.records import Difference, TaskResult
from moslora.runs.folder import RunFolder

Losses = dict[str, dict[int, np.ndarray]]  # by arm and seed: the loss of each sample


class HeldOut(NamedTuple):
    """What the runs made of a task's samples: their losses, and what is known of the samples."""

    losses: Losses
    samples: Questions


def read_held_out(
    finished: Mapping[str, Mapping[int, Path]], diverged: Mapping[str, Mapping[int, Path]], *, task: str
) -> HeldOut:
    """The losses of each arm and seed, read from run folders.

    A seed that diverged has no losses: it counts with the highest that any run has of each sample, which is less than
    it deserves. Raises `CheckpointError` if runs did not measure the same samples, or their losses are damaged.
    """
    read = {arm: {seed: _read(folder, task) for seed, folder in by_seed.items()} for arm, by_seed in finished.items()}
    first_folder, first = next(
        (finished[arm][seed], one) for arm, by_seed in read.items() for seed, one in by_seed.items()
    )
    for arm, by_seed in read.items():
        for seed, one in by_seed.items():
            if [(a.index, a.tokens, a.group) for a in one] != [(a.index, a.tokens, a.group) for a in first]:
                raise CheckpointError(
                    f"{first_folder} and {finished[arm][seed]} did not measure the loss on the same samples of {task};"
                    " score every run on the same file, with the same tokenizer"
                )
    losses: dict[str, dict[int, np.ndarray]] = {
        arm: {seed: np.array([answer.loss for answer in one]) for seed, one in by_seed.items()}
        for arm, by_seed in read.items()
    }
    highest: np.ndarray = np.max([one for by_seed in losses.values() for one in by_seed.values()], axis=0)
    for arm, seeds in diverged.items():
        losses[arm] = dict(sorted((losses.get(arm, {}) | dict.fromkeys(seeds, highest)).items()))
    return HeldOut({arm: by_seed for arm, by_seed in losses.items() if by_seed}, _samples(first))


def compare_losses(
    held_out: Mapping[str, HeldOut], *, baseline: Mapping[str, str], doubts: Doubts = NO_DOUBTS
) -> tuple[dict[str, dict[str, TaskResult]], list[Difference]]:
    """Each arm's mean loss by task, and its difference to its baseline on each.

    Arms are paired over the seeds both have; the p values are Holm-adjusted over all arms and tasks.
    """
    results: dict[str, dict[str, TaskResult]] = {}
    pairs: dict[tuple[str, str], np.ndarray] = {}
    for task, found in held_out.items():
        for arm, by_seed in found.losses.items():
            results.setdefault(arm, {})[task] = _result(by_seed, found.samples)
        for arm, other in baseline.items():
            shared = sorted(found.losses.get(arm, {}).keys() & found.losses.get(other, {}).keys())
            if arm != other and shared:
                gaps = [found.losses[arm][seed] - found.losses[other][seed] for seed in shared]
                pairs[task, arm] = np.stack(gaps)
    estimates = {key: estimate([held_out[key[0]].samples.table(gaps)]) for key, gaps in pairs.items() if len(gaps) > 1}
    adjusted = dict(zip(estimates, holm([one.p_value for one in estimates.values()]), strict=True))
    differences = []
    for (task, arm), gaps in pairs.items():
        given: dict[str, Any] = {"arm": arm, "baseline": baseline[arm], "task": task, "seeds": len(gaps), "verdict": ""}
        if one := estimates.get((task, arm)):
            given |= {"low": one.low, "high": one.high, "p_value": one.p_value, "p_adjusted": adjusted[task, arm]}
            difference = Difference(**given, mean=one.mean)
            difference.verdict = of_loss(difference, doubts=doubts)
        else:
            table = held_out[task].samples.table(gaps)
            difference = Difference(**given, mean=float(table.values.mean()))
            difference.verdict = of_loss_of_one_seed(p_of_no_difference([table]))
        differences.append(difference)
    return results, differences


def _read(folder: Path, task: str) -> list[SampleAnswer]:
    path = RunFolder(folder).answers / f"{task}-after-loss.jsonl"
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        found = [SampleAnswer.from_dict(line) for line in lines]
    except FileNotFoundError:
        raise CheckpointError(
            f"no losses of {task} at {path}; let the run finish with {task} among its tasks"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"cannot read the losses in {path}: {error!r}; run {folder} again") from error
    if not found:
        raise CheckpointError(f"{path} holds no losses; run {folder} again")
    return found


def _samples(found: Sequence[SampleAnswer]) -> Questions:
    groups = [one.group for one in found]
    return Questions(
        number=len(found),
        groups=None if None in groups else groups,
        weights=np.array([one.tokens for one in found], dtype=float),
        steps=np.zeros(len(found)),  # a loss may change by as little as it likes
    )


def _result(by_seed: Mapping[int, np.ndarray], samples: Questions) -> TaskResult:
    seeds = sorted(by_seed)
    table = samples.table(np.stack([by_seed[seed] for seed in seeds]))
    means = table.values.mean(axis=1)
    found = estimate([table]) if len(seeds) > 1 else None
    return TaskResult(
        mean=float(means.mean()),
        low=found and found.low,
        high=found and found.high,
        per_seed={str(seed): float(mean) for seed, mean in zip(seeds, means, strict=True)},
    )
