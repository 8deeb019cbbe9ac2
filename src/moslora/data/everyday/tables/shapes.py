"""The three shapes a table of everyday facts can have.

Items are written bare and separated by commas. `sparrow` is asked about as "a sparrow"; `~snow` takes no article;
items that start with "a", "an" or "the" are used as they stand.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """Items under the answer they share: "What is a sparrow?" gives "a bird"."""

    kind: str
    questions: tuple[str, ...]
    # Answer -> items.
    items: dict[str, str]
    # Answer -> answers never offered beside it, because they might be right for one of its items, or the reverse.
    clashes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairs:
    """Two phrases that answer each other: `hot > cold` is asked from both ends."""

    kind: str
    # Asked about the left phrase; the right one is the answer.
    forward: tuple[str, ...]
    # Asked about the right phrase; the left one is the answer.
    backward: tuple[str, ...]
    # Family -> pairs. A question offers at most one phrase of a family, so that near-synonyms never meet.
    families: dict[str, str]


@dataclass(frozen=True)
class Sizes:
    """Items in tiers, smallest first; a question offers one item of each of four tiers."""

    kind: str
    smallest: tuple[str, ...]
    biggest: tuple[str, ...]
    # Asked about an item of the same tier as the answer.
    alike: tuple[str, ...]
    tiers: tuple[str, ...]


Table = Facts | Pairs | Sizes
