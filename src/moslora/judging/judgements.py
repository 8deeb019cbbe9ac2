"""What judges answered, read back from a study's file; nothing here changes it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from moslora.errors import DataError
from moslora.judging.schema import FILE, FORMAT
from moslora.judging.writing import fold

Outcome = Literal["first", "tie", "second"]
Check = Literal["same", "swapped"]

_JUDGEMENTS = """
SELECT judge.name, item.name, item.subject, item.prompt, question, choice, first, second, showing."left",
       "check", seconds, answered
FROM judgement JOIN showing ON showing.id = judgement.showing JOIN judge ON judge.id = showing.judge
     JOIN item ON item.id = showing.item
WHERE withdrawn IS NULL ORDER BY judge.id, showing.place, question
"""


@dataclass(frozen=True)
class Judgement:
    """One judge's answer to one question about one pair.

    `pair` is the name the answers share (of three methods and more, three pairs have that name and other methods).
    `first` and `second` are the methods in the study's order, `left` the one that stood left. A check is no judgement
    to count: "swapped" repeats a pair with its sides swapped, "same" shows the answer of `left` on both sides, so that
    its outcome is "tie" if it is passed. `seconds` passed since the pair was shown; `answered` is in UTC.
    """

    judge: str
    pair: str
    subject: str | None
    prompt: str
    question: str
    first: str
    second: str
    outcome: Outcome
    left: str
    check: Check | None
    seconds: float
    answered: datetime


@dataclass(frozen=True)
class StudyRecord:
    """A study: what was planned, who judges, and what they answered so far.

    `pairs_planned` is what each judge is to see, checks not counted; `judges_planned` the number of judges when the
    study began, and `added` are those who joined later. `reopened` counts how often judging went on after it had been
    closed, and results could be seen; `added_after_closing` are those who joined after that.
    """

    methods: tuple[str, ...]
    questions: tuple[str, ...]
    pairs_planned: int
    judges_planned: int
    judges: tuple[str, ...]
    subjects: tuple[str, ...]
    judgements: tuple[Judgement, ...]
    is_closed: bool
    reopened: int = 0
    added_after_closing: tuple[str, ...] = ()

    @property
    def added(self) -> tuple[str, ...]:
        """Judges who joined after the study had begun."""
        return self.judges[self.judges_planned :]


def read_study(folder: str | Path) -> StudyRecord:
    """The study in a folder, whether or not it is being served. Raises DataError for a folder without one."""
    with opened(folder) as database:
        told = settings(database)
        methods, questions = tuple(told["methods"]), tuple(told["questions"])
        events = [what for (what,) in database.execute("SELECT what FROM event ORDER BY id")]
        items = database.execute("SELECT DISTINCT subject FROM item WHERE subject IS NOT NULL ORDER BY subject")
        return StudyRecord(
            methods=methods,
            questions=questions,
            pairs_planned=told["pairs_planned"],
            judges_planned=told["judges_planned"],
            judges=tuple(name for (name,) in database.execute("SELECT name FROM judge ORDER BY id")),
            subjects=tuple(name for (name,) in items),
            judgements=tuple(_judgement(row, methods, questions) for row in database.execute(_JUDGEMENTS)),
            is_closed=bool(events) and events[-1] == "closed",
            reopened=events.count("reopened"),
            added_after_closing=tuple(name for name, closed in told.get("added", {}).items() if closed),
        )


def read_answer(folder: str | Path, pair: str, *, method: str) -> bytes | str:
    """A method's answer as judges saw it: the content of a PNG file, or text. Raises DataError where there is none."""
    with opened(folder) as database:
        told = settings(database)
        found = database.execute(
            "SELECT body FROM answer JOIN item ON item.id = item WHERE item.name = ? AND method = ?",
            (pair, told["methods"].index(method) if method in told["methods"] else -1),
        ).fetchone()
    if found is None:
        raise DataError(f"{folder}: there is no answer of '{method}' to '{pair}'; take names that the study has")
    return found[0].decode() if told["kind"] == "text" else found[0]


def read_photos(folder: str | Path, subject: str | None) -> list[bytes]:
    """The photos of a subject that judges saw, as the content of PNG files."""
    with opened(folder) as database:
        rows = database.execute("SELECT body FROM photo WHERE subject IS ? ORDER BY id", (subject,))
        return [body for (body,) in rows]


@contextmanager
def opened(folder: str | Path) -> Iterator[sqlite3.Connection]:
    """A study's file, open for reading. Raises DataError for a folder without one, or of another version."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no study ({FILE}); give the folder that `moslora judge serve` wrote")
    with suppress(sqlite3.DatabaseError):  # where nothing can be written, the log is read beside the file
        fold(path)
    database = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        found = settings(database)["format"]
        if found != FORMAT:
            raise DataError(f"{path} is a study of format {found}, and this version reads {FORMAT}; update moslora")
        yield database
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is not a study that can be read ({error}); restore it from a copy") from error
    finally:
        database.close()


def settings(database: sqlite3.Connection) -> dict[str, Any]:
    """What a study was begun with, by name."""
    return {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM study")}


def _judgement(row: tuple[Any, ...], methods: tuple[str, ...], questions: tuple[str, ...]) -> Judgement:
    judge, pair, subject, prompt, question, choice, first, second, left, check, seconds, answered = row
    is_first_left = left == first
    outcome: Outcome = "tie" if choice == "tie" else "first" if (choice == "left") == is_first_left else "second"
    return Judgement(
        judge=judge,
        pair=pair,
        subject=subject,
        prompt=prompt,
        question=questions[question],
        first=methods[first],
        second=methods[second],
        outcome=outcome,
        left=methods[left],
        check=check,
        seconds=seconds,
        answered=datetime.fromisoformat(answered),
    )
