"""Writing so that a reader, and a kill at any moment, sees nothing or the whole; and asking early if it can be."""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from moslora.errors import OutputError

ANOTHER = "give another folder with --output"


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that readers, and a kill at any moment, see the old content or the new, never a part.

    Text is written as UTF-8. Raises `OutputError` naming the file and the reason.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write {path}: {reason}; free the space or choose another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def is_leftover(path: Path) -> bool:
    """Whether this is a file that `write_atomically` had not finished when its process was killed."""
    return re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name) is not None


@contextmanager
def new_folder(folder: str | Path, *, is_private: bool = False) -> Iterator[Path]:
    """A folder to fill, beside `folder` on the same disk; it becomes `folder` when the block ends without error.

    Its files get the permissions of any new file; with `is_private` they keep those that the block gives them.
    Raises OutputError when `folder` exists and is not an empty folder, or its parent cannot be written.
    """
    folder = Path(folder).absolute()
    _check_unused(folder)
    temporary = _place_beside(folder)
    staged = temporary / folder.name
    staged.mkdir()
    try:
        yield staged
        if not is_private:
            _open_to_others(staged)
        if folder.exists():
            folder.rmdir()
        staged.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """The path of a file to write, beside `path` on the same disk; it becomes `path` when the block ends without error.

    Raises OutputError when `path` exists, or its folder cannot be written.
    """
    path = Path(path).absolute()
    _check_absent(path)
    temporary = _place_beside(path)
    staged = temporary / "new"
    staged.mkdir()
    try:
        yield staged / path.name
        _open_to_others(staged)
        (staged / path.name).replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(folder: str | Path, *, needed_bytes: int = 0) -> None:
    """Refuse early what `new_folder` would refuse after the work is done, and a disk that is too full.

    Changes nothing. Raises `OutputError`.
    """
    _check_unused(Path(folder))
    check_writable(folder, needed_bytes=needed_bytes)


def check_new_file(path: str | Path) -> None:
    """Refuse early what `new_file` would refuse after the work is done. Changes nothing. Raises `OutputError`."""
    _check_absent(Path(path))
    check_writable(path)


def check_writable(path: str | Path, *, needed_bytes: int = 0) -> None:
    """Write and remove a small file in the nearest folder that exists, and ask for the free space there.

    Raises `OutputError` for a place that takes no file, or has fewer than `needed_bytes` bytes free.
    """
    place = Path(path).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    probe = place / f".moslora-{uuid4().hex[:8]}.tmp"
    try:
        if not place.is_dir():
            raise NotADirectoryError(20, f"{place} is a file")
        probe.write_bytes(b"moslora")
        free_bytes = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(f"cannot write to {path}: {error.strerror or error}; {ANOTHER}") from error
    finally:
        if place.is_dir():
            probe.unlink(missing_ok=True)
    if free_bytes < needed_bytes:
        raise OutputError(
            f"{path} needs {_gigabytes(needed_bytes)} and its disk has {_gigabytes(free_bytes)} free; "
            f"free some space or {ANOTHER}"
        )


def cache_folder() -> Path:
    """Where what took time to make is kept: MOSLORA_CACHE, else `moslora` in the user's cache folder."""
    given = os.environ.get("MOSLORA_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "moslora"


def _place_beside(path: Path) -> Path:
    """A new hidden folder in the folder of `path`, which is made where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {error.strerror}; choose another folder") from None


def _open_to_others(staged: Path) -> None:
    """Give files the permissions of any new file, as `staged` has those of a new folder: safetensors writes 0600."""
    usual = stat.S_IMODE(staged.stat().st_mode) & 0o666
    for path in staged.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | usual)


def _check_unused(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not an empty folder: choose another one, or remove it")


def _check_absent(path: Path) -> None:
    if path.exists():
        raise OutputError(f"{path} exists: choose another name, or remove it")


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
