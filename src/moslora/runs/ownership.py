"""A run belongs to one process at a time: a lock that the system releases when its process dies, however it dies.

Beside a run's folder lie `.NAME.lock` and, while the lock is held, `.NAME.holder`, which says by whom; inside the
folder where the one around it takes no file. The lock is of a path, not of a folder: one that is removed and made
again while its process lives stays that process's.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from moslora.errors import InUseError
from moslora.files import ANOTHER, write_atomically

LOCK, HOLDER = ".lock", ".holder"  # the ends of the files' names


@contextmanager
def owned(folder: str | Path, *, wait_seconds: float = 0) -> Iterator[None]:
    """Hold the run in `folder` inside; a thread that holds it already may do so again.

    Raises `InUseError` if another process, or another thread, holds it (and goes on so for `wait_seconds`).
    """
    lock, holder = _lock(folder), _beside(folder, HOLDER)
    was_held = lock.is_locked
    holder.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        raise InUseError(_in_use(folder)) from None
    try:
        if not was_held:
            write_atomically(holder, _this_process())
        yield
    finally:
        if not was_held:
            holder.unlink(missing_ok=True)
        lock.release()


def check_unowned(folder: str | Path) -> None:
    """Refuse a run that another process, or another thread, holds; leaves no trace. Raises `InUseError`."""
    if not _beside(folder, LOCK).is_file():
        return
    lock = _lock(folder)
    try:
        lock.acquire()
    except Timeout:
        raise InUseError(_in_use(folder)) from None
    lock.release()


def is_owned(folder: str | Path) -> bool:
    """Whether another process, or another thread, holds the run in `folder`."""
    try:
        check_unowned(folder)
    except OSError:  # InUseError is one; a lock that cannot be opened may be held
        return True
    return False


def is_lock(path: Path) -> bool:
    """Whether this file is part of a lock that lies inside its folder."""
    return path.name in (LOCK, HOLDER)


def _lock(folder: str | Path) -> FileLock:
    return FileLock(_beside(folder, LOCK), timeout=0, is_singleton=True)  # one a path and thread: it may nest


def _beside(folder: str | Path, ending: str) -> Path:
    place = Path(folder).resolve()  # the same for every way to write it, links included
    is_closed = place.parent.is_dir() and not os.access(place.parent, os.W_OK)
    return place / ending if is_closed else place.with_name(f".{place.name}{ending}")


def _this_process() -> str:
    since = datetime.now().astimezone().replace(microsecond=0).isoformat(sep=" ")
    return f"process {os.getpid()} on {socket.gethostname()}, since {since}"


def _in_use(folder: str | Path) -> str:
    holder = "another process"
    with suppress(OSError):  # it may be about to write it
        holder = _beside(folder, HOLDER).read_text(encoding="utf-8") or holder
    return f"the run {folder} is in use by {holder}: wait for it, stop it, or {ANOTHER}"
