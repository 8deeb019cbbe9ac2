"""Held-out samples: the loss of each, and their mean over tokens with its interval. Imports no torch."""

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from moslora.errors import DataError
from moslora.estimation import t_quantile, table, variance_of
from moslora.evaluation.answers import SampleAnswer
from moslora.evaluation.scores import perplexity
from moslora.records import LossRecord


class MeanLoss(NamedTuple):
    """A mean over tokens with the 95 % interval for new samples; None where one sample tells nothing of others."""

    loss: float
    low: float | None
    high: float | None


def mean_loss(losses: Sequence[float], tokens: Sequence[int], groups: Sequence[Hashable] | None = None) -> MeanLoss:
    """The mean loss of all tokens, each counting alike. Samples vary, not tokens: those of one depend on each other.

    Raises DataError if there are none.
    """
    if not len(losses):
        raise DataError("no samples to take the loss of; give at least one")
    mean = float(np.average(losses, weights=tokens))
    if len(set(groups or range(len(losses)))) < 2 or not math.isfinite(mean):
        return MeanLoss(mean, None, None)
    spread = variance_of([table(np.array([losses]), groups, answer=0.0, weights=np.array(tokens, dtype=float))])
    half = t_quantile(spread.questions.freedom) * spread.questions.variance**0.5
    return MeanLoss(mean, mean - half, mean + half)


def loss_record(
    answers: Sequence[SampleAnswer], *, task: str, when: str, prompt: str, wall_seconds: float, learned: str
) -> LossRecord:
    """The numbers of held-out samples scored once; `learned` says on which tokens the loss is."""
    groups = [answer.group for answer in answers]
    found = mean_loss(
        [answer.loss for answer in answers],
        [answer.tokens for answer in answers],
        None if None in groups else groups,
    )
    return LossRecord(
        task=task,
        when=when,
        prompt=prompt,
        learned=learned,
        loss=found.loss,
        low=found.low,
        high=found.high,
        perplexity=perplexity(found.loss),
        samples=len(answers),
        tokens=sum(answer.tokens for answer in answers),
        wall_seconds=wall_seconds,
    )
