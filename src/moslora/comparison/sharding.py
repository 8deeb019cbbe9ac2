"""One of several processes, or machines, that share a comparison's runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from moslora.comparison.matrix import Final, Run
from moslora.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` parts, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/3` as the second of three. Raises ConfigError."""
        number, separator, count = text.partition("/")
        if not (separator and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            raise ConfigError(f"--shard '{text}' is not a share of the runs; write for example --shard 1/2")
        return cls(int(number), int(count))

    def part(self, work: Sequence[Run | Final]) -> list[Run | Final]:
        """The runs that are this process's, in their order.

        Each arm's are dealt out over all parts, those that count and the tuning runs each for themselves: what one
        machine does to a run, all arms meet alike. Of parts that have as many of them, the one with least to do takes
        the next run.
        """
        taken: Counter[tuple[int | str, ...]] = Counter()
        mine = []
        for one in work:
            row = f"runs of {one.arm.label}" if isinstance(one, Final) else f"tuning of {one.arm.tuned_as}"
            counted = [(row,), (), (one.arm.tuned_as,)]  # what is spread first, and what decides between equals
            part = min(range(self.count), key=lambda p: [taken[p, *key] for key in counted])
            taken.update((part, *key) for key in counted)
            if part == self.number - 1:
                mine.append(one)
        return mine
