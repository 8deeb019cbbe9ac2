"""A study while it is served: who may see what, what comes next, and what is kept of an answer."""

import sqlite3
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock, Timeout

from moslora.errors import InUseError
from moslora.judging.founding import add_later
from moslora.judging.judgements import opened, settings
from moslora.judging.schema import FILE
from moslora.judging.writing import Writer, connect

Choice = Literal["left", "tie", "right"]
CHOICES: tuple[Choice, ...] = ("left", "tie", "right")
LOCK = ".serving.lock"

_LIVE = "EXISTS (SELECT 1 FROM judgement WHERE judgement.showing = showing.id AND withdrawn IS NULL)"
_PAGE = 'SELECT showing.id, place, token, left_token, right_token, item, "left", "right" FROM showing WHERE '


class RefusedError(Exception):
    """What a judge sent is not taken: the HTTP status, the reason in words for them, and what leads on from there."""

    def __init__(self, status: int, reason: str, *, onward: str = "Go on") -> None:
        super().__init__(reason)
        self.status, self.reason, self.onward = status, reason, onward


@dataclass(frozen=True)
class Judge:
    """Somebody with a personal link."""

    id: int
    name: str
    token: str


@dataclass(frozen=True)
class Page:
    """What a judge is to be shown next: tokens of the page and of the two answers, and how far they are.

    `chosen` are the choices by question that were undone, if it was answered before. `later` are the tokens of the
    answers on the page after it.
    """

    token: str
    answers: tuple[str, str]
    texts: tuple[str, str] | None
    prompt: str
    photos: tuple[str, ...]
    place: int
    total: int
    chosen: dict[int, Choice]
    later: tuple[str, ...]


@dataclass(frozen=True)
class Progress:
    """How far a judge is: pages answered, of so many, and when the last was."""

    judge: Judge
    done: int
    total: int
    last: str | None


class Study:
    """The study in a folder, for one server at a time. Raises DataError without one, InUseError while it is served.

    Reading is quick and waits for nobody; what changes it gives futures that are done once the change is on disk.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with opened(folder) as database:
            told = settings(database)
        self._lock = FileLock(self.folder / LOCK)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InUseError(f"{folder} is being served already; stop that server, or open its address") from error
        self.kind: str = told["kind"]
        self.methods: list[str] = told["methods"]
        self.questions: list[str] = told["questions"]
        self.question_texts: list[str] = told["question_texts"]
        self.told: dict[str, Any] = told
        self.admin_token: str = told["admin_token"]
        self._writer = Writer(self.folder / FILE)
        self._reader = connect(self.folder / FILE)
        self._reader.execute("PRAGMA query_only=ON")

    def close(self) -> None:
        """Finish what is being written, and let another server have the study."""
        self._writer.close()
        self._reader.close()
        self._lock.release()

    @property
    def judges(self) -> list[Judge]:
        """Everybody with a link, in the order in which they joined."""
        return [Judge(*row) for row in self._reader.execute("SELECT id, name, token FROM judge ORDER BY id")]

    @property
    def is_closed(self) -> bool:
        """Whether judging has been stopped, and results may be seen."""
        return _is_closed(self._reader)

    def judge_of(self, token: str) -> Judge | None:
        """Whose link this is; how long that takes tells nothing of the links there are."""
        found = [judge for judge in self.judges if compare_digest(judge.token.encode(), token.encode())]
        return found[0] if found else None

    def is_admin(self, token: str) -> bool:
        """Whether this is the token of the admin page."""
        return compare_digest(self.admin_token.encode(), token.encode())

    def page(self, judge: Judge) -> Page | None:
        """What a judge is to be shown next; None when they are done."""
        rows = self._reader.execute(f"{_PAGE} judge = ? AND NOT {_LIVE} ORDER BY place LIMIT 2", (judge.id,)).fetchall()
        if not rows:
            return None
        number, place, token, left_token, right_token, item, left, right = rows[0]
        prompt, subject = self._reader.execute("SELECT prompt, subject FROM item WHERE id = ?", (item,)).fetchone()
        photos = self._reader.execute(
            "SELECT token FROM photo WHERE subject IS ? OR subject IS NULL ORDER BY id", (subject,)
        )
        return Page(
            token=token,
            answers=(left_token, right_token),
            texts=(self._text(item, left), self._text(item, right)) if self.kind == "text" else None,
            prompt=prompt,
            photos=tuple(one for (one,) in photos),
            place=place + 1,
            total=self._total(judge),
            chosen=self._undone(number),
            later=tuple(rows[1][3:5]) if len(rows) > 1 and self.kind != "text" else (),
        )

    def progress(self) -> list[Progress]:
        """How far every judge is."""
        return [self.progress_of(judge) for judge in self.judges]

    def progress_of(self, judge: Judge) -> Progress:
        """How far one judge is."""
        done, last = self._reader.execute(
            "SELECT COUNT(DISTINCT showing), MAX(answered) FROM showing JOIN judgement ON showing = showing.id"
            " WHERE judge = ? AND withdrawn IS NULL",
            (judge.id,),
        ).fetchone()
        return Progress(judge, done, self._total(judge), last)

    def counted(self) -> int:
        """How many judgements there are: answers to one question about one pair, checks left out."""
        found = self._reader.execute(
            'SELECT COUNT(*) FROM judgement JOIN showing ON showing.id = showing WHERE withdrawn IS NULL AND "check" IS'
            " NULL"
        )
        return found.fetchone()[0]

    def picture(self, judge: Judge, token: str) -> bytes | None:
        """One of the two pictures of a page of this judge, as a PNG file; None for any other token."""
        row = self._reader.execute(
            'SELECT item, CASE WHEN left_token = :token THEN "left" ELSE "right" END FROM showing'
            " WHERE judge = :judge AND (left_token = :token OR right_token = :token)",
            {"judge": judge.id, "token": token},
        ).fetchone()
        return self._body(*row) if row and self.kind != "text" else None

    def photo(self, token: str) -> bytes | None:
        """A photo of a subject as a PNG file; None for any other token."""
        row = self._reader.execute("SELECT body FROM photo WHERE token = ?", (token,)).fetchone()
        return row[0] if row else None

    def answer(self, judge: Judge, token: str, *, choices: Sequence[Choice], seconds: float) -> Future[None]:
        """Keep what a judge chose on a page, one choice a question; sent again, the same is kept once.

        The future raises RefusedError for a page that is not this judge's next one, or was answered otherwise, and once
        judging is closed.
        """
        kept = (judge.id, token, tuple(choices), max(0.0, seconds))
        return self._writer.submit(lambda database: _keep(database, *kept))

    def undo(self, judge: Judge, token: str | None) -> Future[None]:
        """Take back a judge's last answers. `token` is the page they are on, None the last one of all.

        The future raises RefusedError if they are on another page, have answered nothing, or judging is closed.
        """
        return self._writer.submit(lambda database: _withdraw(database, judge.id, token))

    def add_judge(self, name: str) -> Future[str]:
        """A further judge; their token. The future raises ConfigError for a name that is empty, long or taken."""
        return self._writer.submit(lambda database: add_later(database, name))

    def stop(self) -> Future[None]:
        """Close judging, after which results may be seen; nothing if it is closed."""
        return self._writer.submit(lambda database: _turn(database, "closed"))

    def reopen(self) -> Future[None]:
        """Go on with judging, which the record keeps; nothing if it is open."""
        return self._writer.submit(lambda database: _turn(database, "reopened"))

    def _total(self, judge: Judge) -> int:
        return self._reader.execute("SELECT COUNT(*) FROM showing WHERE judge = ?", (judge.id,)).fetchone()[0]

    def _body(self, item: int, method: int) -> bytes:
        row = self._reader.execute("SELECT body FROM answer WHERE item = ? AND method = ?", (item, method)).fetchone()
        return row[0]

    def _text(self, item: int, method: int) -> str:
        return self._body(item, method).decode()

    def _undone(self, showing: int) -> dict[int, Choice]:
        rows = self._reader.execute(
            "SELECT question, choice FROM judgement WHERE showing = ? ORDER BY rowid", (showing,)
        )
        return dict(rows)


def _keep(database: sqlite3.Connection, judge: int, token: str, choices: tuple[Choice, ...], seconds: float) -> None:
    showing = _own(database, judge, token)
    kept = database.execute(
        "SELECT choice FROM judgement WHERE showing = ? AND withdrawn IS NULL ORDER BY question", (showing,)
    ).fetchall()
    if kept:
        if tuple(choice for (choice,) in kept) == choices:
            return
        raise RefusedError(409, "This pair already has a different answer; the first one stands.")
    if _is_closed(database):
        raise RefusedError(409, "Judging has been closed; this answer was not kept.")
    if showing != _next(database, judge):
        raise RefusedError(409, "This pair is not the next one; nothing was kept.")
    rows = [(showing, question, choice, seconds, _now()) for question, choice in enumerate(choices)]
    database.executemany(
        "INSERT INTO judgement (showing, question, choice, seconds, answered) VALUES (?, ?, ?, ?, ?)", rows
    )


def _withdraw(database: sqlite3.Connection, judge: int, token: str | None) -> None:
    if _is_closed(database):
        raise RefusedError(409, "Judging has been closed; nothing was undone.")
    if token is not None:
        _own(database, judge, token)
    showing = _next(database, judge)
    row = database.execute("SELECT token FROM showing WHERE id = ?", (showing,)).fetchone()
    if (row[0] if row else None) != token:
        raise RefusedError(409, "This is not the pair you are on; nothing was undone.")
    last = database.execute(
        f"SELECT id FROM showing WHERE judge = ? AND {_LIVE} ORDER BY place DESC LIMIT 1", (judge,)
    ).fetchone()
    if last is None:
        raise RefusedError(409, "There is nothing to undo.")
    changed = "UPDATE judgement SET withdrawn = ? WHERE showing = ? AND withdrawn IS NULL"
    database.execute(changed, (_now(), last[0]))


def _own(database: sqlite3.Connection, judge: int, token: str) -> int:
    """The page of a token. Raises RefusedError, which names both, where it is another judge's than the browser's."""
    names = dict(database.execute("SELECT id, name FROM judge"))
    row = database.execute("SELECT id, judge FROM showing WHERE token = ?", (token,)).fetchone()
    if row is None or row[1] != judge:
        whose = f", that of {names[row[1]]}" if row else ""
        raise RefusedError(
            403,
            f"This page belongs to another link{whose}; in this browser, the link of {names[judge]} was opened since."
            " Nothing was changed. To go on with the other link, open it again.",
            onward=f"Go on as {names[judge]}",
        )
    return row[0]


def _next(database: sqlite3.Connection, judge: int) -> int | None:
    row = database.execute(
        f"SELECT id FROM showing WHERE judge = ? AND NOT {_LIVE} ORDER BY place LIMIT 1", (judge,)
    ).fetchone()
    return row[0] if row else None


def _turn(database: sqlite3.Connection, what: Literal["closed", "reopened"]) -> None:
    if _is_closed(database) != (what == "closed"):
        database.execute("INSERT INTO event (what, at) VALUES (?, ?)", (what, _now()))


def _is_closed(database: sqlite3.Connection) -> bool:
    row = database.execute("SELECT what FROM event ORDER BY id DESC LIMIT 1").fetchone()
    return row is not None and cast(str, row[0]) == "closed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
