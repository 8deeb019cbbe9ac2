"""The program in processes of its own, forked from one that imported its libraries once: none waits seconds for them.

What a fresh interpreter alone can show (imports, the help's speed, torchrun) is tested in a fresh interpreter.
"""

import gc
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "moslora.cli", "moslora.comparison.compare", "transformers.trainer"])
PATIENCE_SECONDS = 600


class Program:
    """`moslora` in processes that were started together: one, or as many as there are sets of variables."""

    def __init__(self, arguments: Sequence[object], folder: Path, *, variables: Sequence[dict[str, str]] = ({},)):
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        words = [str(argument) for argument in arguments]
        self._processes = [
            FORKS.Process(target=_main, args=(words, self._stdout, self._stderr, Path.cwd(), {**os.environ, **own}))
            for own in variables
        ]
        for process in self._processes:
            process.start()

    @property
    def stdout(self) -> str:
        return self._stdout.read_text() if self._stdout.exists() else ""

    @property
    def stderr(self) -> str:
        return self._stderr.read_text() if self._stderr.exists() else ""

    def reach(self, event: Callable[[], object]) -> None:
        """Wait until it happened, while all processes run."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not event():
            assert all(process.is_alive() for process in self._processes), self.stderr
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def send(self, signal_number: int) -> None:
        for process in self._processes:
            assert process.pid
            os.kill(process.pid, signal_number)

    def finish(self) -> int:
        """Wait for the end of all; the exit code that is furthest from 0."""
        for process in self._processes:
            process.join(PATIENCE_SECONDS)
        codes = [process.exitcode for process in self._processes]
        assert None not in codes, self.stderr
        return max((code for code in codes if code is not None), key=abs)

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _main(words: list[str], stdout: Path, stderr: Path, folder: Path, variables: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    for number, path in ((1, stdout), (2, stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    gc.freeze()
    from moslora.cli import main

    sys.argv = ["moslora", *words]
    main()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """`start("train", recipe)` starts the program; what still runs when the test ends is stopped."""
    started: list[Program] = []

    def run(*arguments: object, variables: Sequence[dict[str, str]] = ({},)) -> Program:
        started.append(Program(arguments, tmp_path_factory.mktemp("program"), variables=variables))
        return started[-1]

    yield run
    for program in started:
        program.stop()


@pytest.fixture
def start_two(start: Callable[..., Program]) -> Callable[..., Program]:
    """`start` of two processes that know of each other, by the variables that torchrun sets."""

    def run(*arguments: object) -> Program:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return start(*arguments, variables=[{**shared, "RANK": rank, "LOCAL_RANK": rank} for rank in "01"])

    return run


@pytest.fixture
def in_two_processes(start_two: Callable[..., Program]) -> Callable[..., str]:
    """What two processes of the program print, both together."""

    def run(*arguments: object) -> str:
        program = start_two(*arguments)
        assert program.finish() == 0, program.stderr
        return program.stdout

    return run
