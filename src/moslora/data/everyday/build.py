"""From the tables to questions, the same ones on every machine.

Questions come in groups of four that share their four options, and each option is right in exactly one of the four, at
a different position. So whoever sees only the options, in whatever order, does no better than chance (25 %).
"""

from collections import Counter
from collections.abc import Sequence
from random import Random

from moslora.data.everyday.entries import Entry, clashing_topics, shared_words, table_entries
from moslora.data.everyday.split import held_out_words
from moslora.data.everyday.tables import TABLES
from moslora.data.everyday.tables.shapes import Sizes, Table

SEED = 2024
OPTIONS = 4
# Far more than any table needs; it turns a table without enough compatible answers into an error.
MOST_DRAWS_A_GROUP = 20
GROUPS_A_KIND = {"train": 50, "test": 8}

Group = tuple[Entry, ...]
Sample = dict[str, str]


def build_split(split: str) -> list[Sample]:
    """The questions of a split, the kinds mixed."""
    kinds = {table.kind: table_entries(table) for table in TABLES}
    shared = frozenset[str]().union(*map(shared_words, TABLES))
    held_out = held_out_words(kinds, shared, Random(SEED))
    rng = Random(f"{SEED} {split}")
    samples: list[Sample] = []
    for table in TABLES:
        entries = [entry for entry in kinds[table.kind] if bool(entry.words & held_out) == (split == "test")]
        if isinstance(table, Sizes):
            entries = _with_alike(entries)
        groups = _draw_groups(entries, GROUPS_A_KIND[split], clashing=clashing_topics(table), rng=rng)
        for number, group in enumerate(groups, start=1):
            name = f"{table.kind} {number}"
            samples += [{**sample, "group": name} for sample in _ask(table, group, entries, rng)]
    rng.shuffle(samples)
    return samples


def _with_alike(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are not alone in their tier, so that each can be asked for by another of like size."""
    in_tier = Counter(entry.topic for entry in entries)
    return [entry for entry in entries if in_tier[entry.topic] > 1]


def _draw_groups(
    entries: Sequence[Entry], count: int, *, clashing: frozenset[frozenset[str]], rng: Random
) -> list[Group]:
    """`count` groups of entries that can share their options, each entry used about equally often."""
    uses: Counter[Entry] = Counter()
    asked: set[tuple[str, frozenset[str]]] = set()
    groups: list[Group] = []
    for _ in range(MOST_DRAWS_A_GROUP * count):
        group = _next_group(sorted(entries, key=lambda entry: (uses[entry], rng.random())), clashing)
        uses.update(group)
        options = frozenset(entry.answer for entry in group)
        questions = {(entry.subject, options) for entry in group}
        if len(options) == OPTIONS and not questions & asked:
            asked |= questions
            groups.append(group)
        if len(groups) == count:
            return groups
    raise AssertionError(f"only {len(groups)} of {count} groups fit together: {entries[0]}; loosen the clashes")


def _next_group(entries: Sequence[Entry], clashing: frozenset[frozenset[str]]) -> Group:
    """The first entries that go together; fewer than four if there are no four."""
    group: list[Entry] = []
    for entry in entries:
        fits = all(
            entry.topic != other.topic and frozenset((entry.topic, other.topic)) not in clashing for other in group
        )
        if fits:
            group.append(entry)
        if len(group) == OPTIONS:
            break
    return tuple(group)


def _ask(table: Table, group: Group, entries: Sequence[Entry], rng: Random) -> list[Sample]:
    """The four questions of a group, the right answer once at each position."""
    samples: list[Sample] = []
    positions = rng.sample(range(OPTIONS), OPTIONS)
    for entry, position in zip(group, positions, strict=True):
        question = _question(entry, rng)
        if isinstance(table, Sizes):
            question = _size_question(table, entry, group=group, entries=entries, rng=rng)
        options = rng.sample([other.answer for other in group if other is not entry], OPTIONS - 1)
        options.insert(position, entry.answer)
        samples.append(_sample(table.kind, question, options, position))
    return samples


def _question(entry: Entry, rng: Random) -> str:
    return rng.choice(entry.questions).format(entry.subject)


def _size_question(table: Sizes, entry: Entry, *, group: Group, entries: Sequence[Entry], rng: Random) -> str:
    """A question that `entry` answers: by rank for the outer two of a group, by an item of like size for the others."""
    tiers = sorted(int(other.topic) for other in group)
    if int(entry.topic) == tiers[0]:
        return rng.choice(table.smallest)
    if int(entry.topic) == tiers[-1]:
        return rng.choice(table.biggest)
    alike = [other for other in entries if other.topic == entry.topic and other is not entry]
    return _question(rng.choice(alike), rng)


def _sample(kind: str, question: str, options: Sequence[str], position: int) -> Sample:
    labelled = ", ".join(f"{option} answer{number}" for number, option in enumerate(options, start=1))
    answer = f"answer{position + 1}"
    return {
        "instruction": f"{question}\n{labelled}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
        "kind": kind,
    }
