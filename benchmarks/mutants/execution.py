"""Running tests on a copy of the tree, each time in a fresh process that has the libraries loaded but not the package.

The libraries take most of a short test's time; a process forked after they are imported has them at once.
"""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

PACKAGE = "moslora"
LIBRARIES = (
    "torch", "peft", "transformers", "datasets", "accelerate", "bitsandbytes", "diffusers", "trl", "scipy.stats",
    "pydantic", "typer", "yaml", "matplotlib.pyplot", "pytest", "coverage",
)  # fmt: skip
COPIED = ("src", "tests", "pyproject.toml")
QUIET = ["-q", "-p", "no:cacheprovider", "--no-header", "--show-capture=no", "--tb=line"]
QUIET += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of pytest plugins that the libraries import


def preload() -> None:
    """Import what the tests import, single-threaded, so that forking is safe; the package itself comes later."""
    for name in LIBRARIES:
        try:
            import_module(name)
        except ImportError:
            continue
    assert PACKAGE not in sys.modules, f"{PACKAGE} is loaded already: mutants of it would not be"


def copy_tree(root: Path, place: Path) -> Path:
    """A copy of the sources and tests that mutants are written into."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place / name)
    return place


class Job:
    """A function running in a forked process of its own session, in `tree`, until it ends or its time is over."""

    def __init__(self, tree: Path, function: Callable[[], int], *, seconds: float | None = None) -> None:
        self.tree = tree
        self.log = tree / "log.txt"
        self.started = time.monotonic()
        self.ends = None if seconds is None else self.started + seconds
        self.process: Any = get_context("fork").Process(target=_run, args=(tree, self.log, function))
        self.process.start()

    def code(self) -> int | None:
        """The exit code (negative for a signal), or None when its time is over, whereupon it is ended."""
        if self.process.exitcode is None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self.process.kill()
            self.process.join()
            return None
        return self.process.exitcode


def _run(tree: Path, log: Path, function: Callable[[], int]) -> None:
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(tree)
    source = str(tree / "src")
    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source
    code = function()
    loaded = getattr(sys.modules.get(PACKAGE), "__file__", None)
    if loaded is not None and not str(loaded).startswith(source):
        print(f"{PACKAGE} came from {loaded} and not from {source}")
        code = 99
    sys.stdout.flush()
    os._exit(code)


def finished(jobs: Sequence[Job]) -> Iterator[Job]:
    """Wait until one of the jobs has ended or is over its time; those that have."""
    ends = [job.ends for job in jobs if job.ends is not None]
    timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
    done = set(wait([job.process.sentinel for job in jobs], timeout))
    for job in jobs:
        if job.process.sentinel in done:
            job.process.join()
            yield job
        elif job.ends is not None and time.monotonic() >= job.ends:
            yield job
