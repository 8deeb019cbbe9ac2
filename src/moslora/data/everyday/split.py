"""Which items are asked about in training and which are kept for the test.

Items are split, not questions. Two items that share a key word, in whatever kinds, go to the same split, and so do
items linked through a third one. An item that uses a word of the shared text (phrasings, category answers) goes to
training. So no key word of a test item is in any training question or option.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from moslora.data.everyday.entries import Entry

# As many as there are test questions of a kind, so that hardly any item is asked about twice.
TEST_ITEMS_A_KIND = 32
# An answer shared by several items stays the answer of most of them in training.
MAX_TEST_SHARE = 1 / 3
# A larger set of linked items goes to training whole: it would tip the test towards one theme.
MAX_LINKED_WORDS = 12

# Kind and answer: the same words may answer two kinds.
Answer = tuple[str, str]


def held_out_words(kinds: Mapping[str, Sequence[Entry]], shared: frozenset[str], rng: Random) -> frozenset[str]:
    """The words that only the test may use, given the entries of each kind and the words that both splits use."""
    limits = _limits(kinds)
    taken: Counter[Answer] = Counter()
    taken_of_kind: Counter[str] = Counter()
    held_out: set[str] = set()
    linked = _linked(entry.words for entries in kinds.values() for entry in entries)
    costs = _costs(kinds, linked)
    for words in rng.sample(linked, len(linked)):
        if words & shared or len(words) > MAX_LINKED_WORDS:
            continue
        cost = costs[words]
        is_needed = any(taken_of_kind[kind] < TEST_ITEMS_A_KIND for kind, _ in cost)
        if is_needed and all(taken[answer] + count <= limits[answer] for answer, count in cost.items()):
            taken += cost
            taken_of_kind.update(kind for kind, _ in cost.elements())
            held_out |= words
    return frozenset(held_out)


def _limits(kinds: Mapping[str, Sequence[Entry]]) -> dict[Answer, int]:
    """How many items of an answer the test may take: all of an answer with one item."""
    totals = Counter((kind, entry.answer) for kind, entries in kinds.items() for entry in entries)
    return {answer: int(total * MAX_TEST_SHARE) if total > 1 else 1 for answer, total in totals.items()}


def _linked(items: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """The items' words, merged wherever two items have a word in common, in alphabetical order."""
    of_word: dict[str, set[str]] = {}
    for words in items:
        merged = set(words).union(*(of_word[word] for word in words if word in of_word))
        for word in merged:
            of_word[word] = merged
    return sorted({frozenset(words) for words in of_word.values()}, key=sorted)


def _costs(
    kinds: Mapping[str, Sequence[Entry]], linked: Sequence[frozenset[str]]
) -> dict[frozenset[str], Counter[Answer]]:
    """How many entries of each answer a set of linked words takes from training."""
    home = {word: words for words in linked for word in words}
    costs: dict[frozenset[str], Counter[Answer]] = {words: Counter() for words in linked}
    for kind, entries in kinds.items():
        for entry in entries:
            for words in {home[word] for word in entry.words}:
                costs[words][kind, entry.answer] += 1
    return costs
