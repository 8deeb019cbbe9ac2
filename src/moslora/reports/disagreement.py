"""Two lists of answers side by side: the questions where exactly one of them is right."""

from collections.abc import Mapping, Sequence
from typing import Any

from moslora.data.everyday import asked
from moslora.data.tasks import EVERYDAY
from moslora.reports.parts import Cell, Table, Text

LONGEST = 160  # letters of a free answer
Answers = Sequence[Mapping[str, Any]]


def disagreement(
    first: Answers, second: Answers, *, names: tuple[str, str], task: str, rows: int, units: str = "questions"
) -> list[Any]:
    """A sentence with the four counts and a table of at most `rows` questions, both directions alike; else nothing.

    Nothing is said where the two did not answer the same questions. `units` is what these are called.
    """
    pairs = list(zip(first, second, strict=False))
    if not pairs or len(first) != len(second) or any(a["index"] != b["index"] for a, b in pairs):
        return []
    only_first = [pair for pair in pairs if pair[0]["is_correct"] and not pair[1]["is_correct"]]
    only_second = [pair for pair in pairs if pair[1]["is_correct"] and not pair[0]["is_correct"]]
    both = sum(a["is_correct"] and b["is_correct"] for a, b in pairs)
    neither = len(pairs) - both - len(only_first) - len(only_second)
    counts = (
        f"{task}, {len(pairs)} {units}: both right {both}, only {names[0]} right {len(only_first)},"
        f" only {names[1]} right {len(only_second)}, both wrong {neither}."
    )
    half = rows // 2
    shown = sorted([*only_first[:half], *only_second[:half]], key=lambda pair: pair[0]["index"])
    if not shown:
        return [Text(counts)]
    of = len(only_first + only_second)
    return [Text(counts), _table(shown, names, task=task, texts=_texts(task, first), of=of, units=units)]


def _table(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    names: tuple[str, str],
    *,
    task: str,
    texts: Mapping[int, str],
    of: int,
    units: str,
) -> Table:
    rows = []
    for a, b in pairs:
        question = f"{a['index'] + 1}" + (f". {texts[a['index']]}" if texts else "")
        rows.append([Cell(question, a.get("kind") or ""), a["expected"], _answer(a), _answer(b)])
    shown = "all" if len(pairs) == of else f"{len(pairs)} of {of}"
    caption = f"{task}: {units} where exactly one is right ({shown})"
    head = [units.removesuffix("s"), "right answer", *names]
    return Table(caption, head, rows, words=["right answer", *names], is_prose=bool(texts))


def _answer(answer: Mapping[str, Any]) -> Cell:
    credit = answer.get("credit", 0)
    mark = "right" if answer["is_correct"] else f"credit {credit:.2g}" if credit else "wrong"
    said = answer["predicted"] or (answer.get("text") or "no answer")[:LONGEST]
    return Cell(said, mark)


def _texts(task: str, answers: Answers) -> dict[int, str]:
    """The built-in questions' text, if these are the answers to them; answers of other tasks do not hold theirs."""
    if task != EVERYDAY:
        return {}
    found = asked([(answer["index"], answer["expected"], answer.get("kind")) for answer in answers])
    return {answer["index"]: question["instruction"] for answer, question in zip(answers, found, strict=False)}
