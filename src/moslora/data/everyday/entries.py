"""The tables as one flat list: what can be asked, what answers it, and which words it uses up."""

from collections.abc import Iterator
from dataclasses import dataclass

from moslora.data.everyday.tables.shapes import Facts, Pairs, Sizes, Table
from moslora.data.everyday.wording import key_words, noun_phrase


@dataclass(frozen=True)
class Entry:
    """One item that can be asked about, with its right answer."""

    subject: str
    answer: str
    # Two options of one question never have the same topic.
    topic: str
    questions: tuple[str, ...]
    # The words that only one split may use.
    words: frozenset[str]


def table_entries(table: Table) -> tuple[Entry, ...]:
    """All entries of a table, in its order."""
    match table:
        case Facts():
            return tuple(_fact_entries(table))
        case Pairs():
            return tuple(_pair_entries(table))
        case Sizes():
            return tuple(_size_entries(table))


def shared_words(table: Table) -> frozenset[str]:
    """The words that questions of both splits use: those of the phrasings and of the shared answers."""
    match table:
        case Facts():
            texts = (*table.questions, *table.items)
        case Pairs():
            texts = (*table.forward, *table.backward, *_pairs_without_key(table))
        case Sizes():
            texts = (*table.smallest, *table.biggest, *table.alike)
    return frozenset[str]().union(*map(key_words, texts))


def clashing_topics(table: Table) -> frozenset[frozenset[str]]:
    """The pairs of topics that no question offers together."""
    clashes = table.clashes if isinstance(table, Facts) else {}
    return frozenset(frozenset((topic, other)) for topic, others in clashes.items() for other in _listed(others))


def _listed(text: str, *, mark: str = ",") -> list[str]:
    return [" ".join(part.split()) for part in text.split(mark)]


def _pairs_without_key(table: Pairs) -> list[str]:
    """The pairs with a side of `GLUE` alone: it would not be unseen, so both splits may use them."""
    pairs = [pair for texts in table.families.values() for pair in _listed(texts)]
    return [pair for pair in pairs if not all(map(key_words, _listed(pair, mark=">")))]


def _fact_entries(table: Facts) -> Iterator[Entry]:
    for answer, items in table.items.items():
        for item in _listed(items):
            subject = noun_phrase(item)
            yield Entry(subject, answer, answer, table.questions, key_words(subject))


def _pair_entries(table: Pairs) -> Iterator[Entry]:
    for family, pairs in table.families.items():
        for pair in _listed(pairs):
            left, right = _listed(pair, mark=">")
            words = key_words(f"{left} {right}")
            yield Entry(left, right, family, table.forward, words)
            yield Entry(right, left, family, table.backward, words)


def _size_entries(table: Sizes) -> Iterator[Entry]:
    for tier, items in enumerate(table.tiers):
        for item in _listed(items):
            subject = noun_phrase(item)
            yield Entry(subject, subject, str(tier), table.alike, key_words(subject))
