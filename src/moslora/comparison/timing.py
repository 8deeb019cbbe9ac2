"""How far a comparison is, and about how long the rest takes: one line a run."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Pace:
    """Counts runs, and times those done by this process to foretell the rest."""

    total: int
    report: Callable[[str], None]
    number: int = 0
    finished_before: int = 0
    seconds: float = 0.0
    weight: float = 0.0

    def found(self) -> None:
        """A run that was finished before: counted, and said once when the next one is told of."""
        self.number += 1
        self.finished_before += 1

    def skip(self, line: str) -> None:
        """A run that cannot be done now."""
        self._tell(f"{line}; skipped")

    def done(self, line: str, *, seconds: float, weight: float, left: float) -> None:
        """A run that this process did; `weight` and `left` count steps, its own and the rest's, in whole runs."""
        self.seconds += seconds
        self.weight += weight
        rest = self.seconds / self.weight * left
        self._tell(f"{line}  ({duration(seconds)}{f', about {duration(rest)} left' if rest else ''})")

    def tell_found(self) -> None:
        """Say how many runs were finished before, if that was not said yet."""
        if self.finished_before:
            self.report(f"{self.finished_before} of {self.total} runs were finished before")
            self.finished_before = 0

    def _tell(self, line: str) -> None:
        self.tell_found()
        self.number += 1
        self.report(f"{self.number:>{len(str(self.total))}} of {self.total}  {line}")


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
