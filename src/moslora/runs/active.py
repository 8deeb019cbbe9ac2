"""What every part of a run carries along: its recipe, its folder, its record, and where it says what it does."""

from collections.abc import Callable
from dataclasses import dataclass

from moslora.records import EvaluationRecord, LossRecord, RunRecord
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe

Reporter = Callable[[str], None]  # takes one line of text


@dataclass(frozen=True)
class ActiveRun:
    """A run that is under way."""

    recipe: Recipe
    place: RunFolder
    record: RunRecord
    report: Reporter
    progress: bool  # show progress bars

    def save(self) -> None:
        """Write the record as it is now."""
        self.record.save(self.place.record_path)

    def has_scored(self, task: str, *, when: str, scoring: str) -> bool:
        """Whether an evaluation is in the record already (of a resumed run)."""
        scored = [*self.record.evaluations, *self.record.losses]
        return any((one.task, one.when, one.scoring) == (task, when, scoring) for one in scored)

    def add(self, evaluation: EvaluationRecord | LossRecord) -> None:
        """Add an evaluation to the record, on disk too."""
        if isinstance(evaluation, LossRecord):
            self.record.losses = [*self.record.losses, evaluation]
        else:
            self.record.evaluations = [*self.record.evaluations, evaluation]
        self.save()

    def add_seconds(self, part: str, seconds: float) -> None:
        """Count time for a part of the run; a resumed run adds to what it had."""
        self.record.wall_seconds[part] = self.record.wall_seconds.get(part, 0.0) + seconds
