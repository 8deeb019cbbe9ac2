"""One run, or one comparison, over several processes, as `accelerate launch` and `torchrun` start them.

All processes do the same; the Trainer divides each batch among them. The first one owns the folder. The others write to
a folder that is thrown away, and share only the checkpoints, where each keeps the state of its random numbers.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from moslora.runs.folder import RunFolder


@contextmanager
def follower_folder(folder: str | Path, *, resume: bool) -> Iterator[RunFolder]:
    """A run's folder for a process that is not the first, with what a resumed run needs; it is thrown away."""
    place = RunFolder(Path(folder).absolute())
    with TemporaryDirectory(prefix="moslora-") as scratch:
        own = RunFolder(Path(scratch), owner=place.path)
        if resume:
            shutil.copyfile(place.record_path, own.record_path)
            for name in place.record().artifacts.values():
                (own.path / name).symlink_to(place.path / name)
            if place.answers.is_dir():
                shutil.copytree(place.answers, own.answers)
        yield own
