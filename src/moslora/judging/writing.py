"""Writing to a study's file: one thread, and what waits together is on disk together before anybody is told."""

import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

MOST_TOGETHER = 256
FOLD = "PRAGMA wal_checkpoint(PASSIVE)"
FOLD_SECONDS = 0.5  # until it is tried again, where somebody was reading

T = TypeVar("T")
Change = Callable[[sqlite3.Connection], T]


def connect(path: Path) -> sqlite3.Connection:
    """A study's file, open for changes; a transaction that is committed survives a loss of power."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "fullfsync=ON", "foreign_keys=ON", "busy_timeout=5000"):
        database.execute(f"PRAGMA {pragma}")
    return database


def fold(path: Path) -> None:
    """Move what a server that was killed left in the log beside a study's file into the file; needs to write there."""
    if (log := path.with_name(f"{path.name}-wal")).is_file() and log.stat().st_size:
        database = connect(path)
        try:
            database.execute(FOLD)
        finally:
            database.close()


class Writer:
    """The only one that changes a study's file while it is served.

    A disk takes as long to keep one answer as to keep fifty, so whatever waits becomes one transaction. Whoever copies
    the file alone is to have every answer, so what is in the log beside it is moved into it after each transaction.
    """

    def __init__(self, path: Path) -> None:
        self._waiting: SimpleQueue[tuple[Change[Any], Future[Any]] | None] = SimpleQueue()
        self._database = connect(path)
        self._thread = Thread(target=self._work, name="judgements", daemon=True)
        self._thread.start()

    def submit(self, change: Change[T]) -> Future[T]:
        """Have a change made; the future has its result once it is on disk, or what it raised, and then nothing is."""
        future: Future[T] = Future()
        self._waiting.put((change, future))
        return future

    def close(self) -> None:
        """Finish what waits, and close the file."""
        self._waiting.put(None)
        self._thread.join()
        self._database.close()

    def _work(self) -> None:
        while (first := self._next()) is not None:
            together = [first]
            is_last = False
            while len(together) < MOST_TOGETHER:
                try:
                    another = self._waiting.get_nowait()
                except Empty:
                    break
                if another is None:
                    is_last = True
                    break
                together.append(another)
            self._commit(together)
            if is_last:
                return

    def _next(self) -> tuple[Change[Any], Future[Any]] | None:
        """What waits next, once it comes; until then the log is moved into the file."""
        while not self._is_folded():
            with suppress(Empty):
                return self._waiting.get(timeout=FOLD_SECONDS)
        return self._waiting.get()

    def _is_folded(self) -> bool:
        try:
            _, kept, folded = self._database.execute(FOLD).fetchone()
        except sqlite3.OperationalError:  # the disk is full: answers are safe in the log
            return False
        return kept == folded

    def _commit(self, together: list[tuple[Change[Any], Future[Any]]]) -> None:
        made: list[tuple[Future[Any], Any]] = []
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for change, future in together:
                self._make(change, future, made)
            self._database.execute("COMMIT")
        except Exception as error:  # the disk is full or gone: nothing of this is kept
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            for _, future in together:
                if not future.done():
                    future.set_exception(error)
            return
        for future, result in made:
            future.set_result(result)

    def _make(self, change: Change[Any], future: Future[Any], made: list[tuple[Future[Any], Any]]) -> None:
        """One change of several: what it raises undoes itself alone."""
        self._database.execute("SAVEPOINT one")
        try:
            made.append((future, change(self._database)))
        except Exception as error:
            self._database.execute("ROLLBACK TO one")
            future.set_exception(error)
        self._database.execute("RELEASE one")
