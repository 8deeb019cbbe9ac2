"""What a run takes beside its training steps, tried on a few samples: to validate, to score, and to save."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from moslora.adapter.methods import METHODS
from moslora.adapter.pictures import mixers_of, picture_adapter
from moslora.adapter.preparing import save_trained, starting_tensors
from moslora.evaluation.inference import evaluation_mode
from moslora.runs.environment import peak_memory_bytes
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.material import TestSet, spread_indices
from moslora.runs.steps import RunPlan

BATCHES = 2  # of validation, and of each way of scoring a task


@dataclass
class Rehearsal:
    """The seconds of a run's parts: to save, to validate a sample, to score all that a run that counts scores."""

    recipe: Recipe
    saving: float = 0.0
    validating_a_sample: float = 0.0
    scoring: float = 0.0
    peak_memory_bytes: int = 0

    def __post_init__(self) -> None:
        self.kind, self.method = kind_of(self.recipe.kind), self.recipe.adapter.method

    def play(self, model: nn.Module, planned: RunPlan) -> None:
        """Do a few of each part with a model that has been trained."""
        with _timed() as took, TemporaryDirectory() as scratch:
            # A whole model would fill the disk for nothing, and a projector alone is written in no time.
            if METHODS[self.method].config_class is not None and not planned.is_projector_only:
                start = starting_tensors(model, self.method)
                save_trained(model, Path(scratch) / "adapter", method=self.method, start=start)
            picture_adapter(model, method=self.method, start=mixers_of(model))
        self.saving = took[0]
        self._validate(model, planned)
        test_sets = self.kind.test_sets(self.recipe.evaluation)
        self.scoring = sum(self._score(model, planned, one) for one in test_sets)
        self.peak_memory_bytes = peak_memory_bytes()

    def _validate(self, model: nn.Module, planned: RunPlan) -> None:
        size = self.recipe.evaluation.batch_size
        rows = [planned.material.rows[i] for i in spread_indices(len(planned.material.rows), BATCHES * size)]
        collate = self.kind.collator(model, planned.processor)
        device = next(model.parameters()).device
        with _timed() as took, evaluation_mode(model):
            for start in range(0, len(rows), size):
                batch = collate(list(rows[start : start + size]))
                model(**{name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()})
        self.validating_a_sample = took[0] / len(rows)

    def _score(self, model: nn.Module, planned: RunPlan, test_set: TestSet) -> float:
        """The seconds of all evaluations of a test set; one way of asking is tried once."""
        settings = self.recipe.evaluation
        moments = ("before", "after") if settings.before else ("after",)
        seconds, known = 0.0, {}
        for moment in moments:
            for when, scoring, indices in self.kind.asked(test_set, settings, when=moment):
                control = "" if when in moments else when
                if (control, scoring) not in known:
                    known[control, scoring] = self._seconds_a_question(
                        model, planned, test_set, when=when, scoring=scoring
                    )
                seconds += known[control, scoring] * len(indices)
        return seconds

    def _seconds_a_question(
        self, model: nn.Module, planned: RunPlan, test_set: TestSet, *, when: str, scoring: str
    ) -> float:
        settings = self.recipe.evaluation
        count = settings.batch_size * (BATCHES if scoring == "log_probability" else 1)
        samples: Sequence[Any] = [test_set.samples[i] for i in spread_indices(len(test_set.samples), count)]
        with _timed() as took:
            self.kind.evaluate(
                model,
                planned.processor,
                samples,
                task=test_set.task,
                when=when,
                scoring=scoring,
                prompt=self.recipe.asked_with,
                batch_size=settings.batch_size,
                progress=False,
            )
        return took[0] / len(samples)


@contextmanager
def _timed() -> Iterator[list[float]]:
    """A list that holds the seconds that the block took, once it has ended."""
    took: list[float] = []
    started = time.perf_counter()
    yield took
    took.append(time.perf_counter() - started)
