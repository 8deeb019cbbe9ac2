"""Writing so that a reader sees either nothing or the whole."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moslora.errors import OutputError


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to fill, beside `folder` on the same disk; it becomes `folder` when the block ends without error.

    Raises OutputError when `folder` exists and is not an empty folder, or its parent cannot be written.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder} exists and is not an empty folder: choose another one, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-")
    except OSError as error:
        raise OutputError(f"cannot write to {folder.parent}: {error.strerror}; choose another folder") from None
    staged = Path(temporary) / folder.name
    staged.mkdir()
    try:
        yield staged
        if folder.exists():
            folder.rmdir()
        staged.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
