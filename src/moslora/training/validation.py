"""The loss of each validation sample, and their mean over tokens, which does not depend on how they are batched."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moslora.data.tokens import IGNORED


class SampleLoss(NamedTuple):
    """A sample's mean loss over the tokens it has labels for, and their number."""

    loss: float
    tokens: int


@torch.no_grad()
def sample_losses(model: nn.Module, batches: Iterable[dict[str, Any]]) -> list[SampleLoss]:
    """The cross entropy of each sample of batches with `labels`, in float32 or wider; the model's mode is restored.

    Where a batch asks for the last logits only, its labels are those of the same positions. Of a batch without labels
    the model tells each sample's loss itself, as of one token.
    """
    was_training = model.training
    model.eval()
    found = []
    for batch in batches:
        if "labels" not in batch:
            found += [SampleLoss(loss, 1) for loss in model(**batch).losses.tolist()]
            continue
        labels = batch.pop("labels")[:, 1:]
        logits = model(**batch).logits[:, :-1]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        counts = (labels != IGNORED).sum(dim=1)
        means = losses.sum(dim=1) / counts
        found += [SampleLoss(*pair) for pair in zip(means.tolist(), counts.tolist(), strict=True)]
    model.train(was_training)
    return found


def mean_over_tokens(losses: Sequence[SampleLoss]) -> float:
    """The mean loss of all tokens, each counting alike."""
    return sum(one.loss * one.tokens for one in losses) / sum(one.tokens for one in losses)
