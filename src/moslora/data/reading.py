"""A source as it is read: where each of its samples stands, and what becomes of those that cannot be used."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from moslora.errors import DataError

MOST_BAD = 0.05  # the share of a source's samples that may be left out because they cannot be used
SKIPPING = "--set data.on_bad=skip"  # how a user leaves such samples out
NAMED = 3  # so many different reasons are told

_NUMBER = re.compile(r"\d+")


class Reading:
    """The places of a source's samples (`mine.jsonl: sample 3 (line 5)`), and the reasons why some cannot be used.

    The first such sample raises its error; with `skips_bad` it is left out, and `check` refuses too many of them. `way`
    is how a user chooses that, told where samples before the bad one are good.
    Samples go by their index (from 0) among those that were read. `remarks` say what was read.
    """

    def __init__(self, source: str, *, skips_bad: bool = False, way: str = "") -> None:
        self.source, self.skips_bad, self._way = source, skips_bad, way
        self.places: list[str] = []
        self.remarks: list[str] = []
        self.reasons: list[str] = []
        self._unusable: set[int] = set()

    @classmethod
    def of(cls, source: str, count: int) -> "Reading":
        """A source of so many samples, of which nothing is known but their numbers."""
        reading = cls(source)
        reading.add(count)
        return reading

    def add(self, count: int) -> None:
        """So many samples more, which only have a number."""
        self.places += [f"{self.source}: sample {number}" for number in range(1, count + 1)]

    def kept(self) -> list[int]:
        """The samples that nothing was wrong with so far."""
        return [index for index in range(len(self.places)) if index not in self._unusable]

    @contextmanager
    def checking(self, index: int) -> Iterator[str]:
        """Gives the sample's place; a DataError within is raised, or leaves the sample out."""
        try:
            yield self.places[index]
        except DataError as error:
            self._refuse(error, after=index)
            self._unusable.add(index)

    def refuse(self, error: DataError) -> None:
        """What was read next is no sample: raises the error, or keeps its reason."""
        self._refuse(error, after=len(self.places))

    def _refuse(self, error: DataError, *, after: int) -> None:
        if not self.skips_bad and self._way and after and self._way not in str(error):
            raise DataError(f"{error} (to leave such samples out: {self._way})") from error
        if not self.skips_bad:
            raise error
        self.reasons.append(str(error).removeprefix(f"{self.source}: "))

    def check(self) -> None:
        """Raise DataError if more samples were left out than `MOST_BAD` allows."""
        total = len(self.places) + len(self.reasons) - len(self._unusable)
        if len(self.reasons) > MOST_BAD * total:
            raise DataError(
                f"{self.source}: {len(self.reasons)} of {total} samples cannot be used, and data.on_bad skip leaves out"
                f" at most {MOST_BAD:.0%}: {self._first()}; or take such samples out of the file"
            )

    def left_out(self) -> list[str]:
        """A note on the samples that cannot be used, with the first reasons; empty if there are none."""
        if not self.reasons:
            return []
        were = "sample that cannot be used was" if len(self.reasons) == 1 else "samples that cannot be used were"
        return [f"{self.source}: {len(self.reasons)} {were} left out ({self._first()})"]

    def _first(self) -> str:
        """The first reasons, each told once with the number of those that differ from it in numbers alone."""
        alike: dict[str, list[str]] = {}
        for reason in self.reasons:
            alike.setdefault(_NUMBER.sub("", reason), []).append(reason)
        first = [*alike.values()][:NAMED]
        told = [own[0] + (f" [and {len(own) - 1} more like it]" if len(own) > 1 else "") for own in first]
        more = len(self.reasons) - sum(map(len, first))
        return " | ".join([*told, *([f"and {more} more"] if more else [])])
