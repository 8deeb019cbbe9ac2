"""Which tests run a line, and how long each takes: one run of the tests under coverage, a context for each test."""

import ast
import json
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage


@dataclass(frozen=True)
class Tests:
    """The seconds of each test, and the tests that run each line of each file."""

    seconds: dict[str, float]
    lines: dict[str, dict[int, list[str]]]

    def running(self, path: str, lines: Iterable[int], *, within_seconds: float) -> tuple[list[str], int]:
        """The tests that run one of the lines, the fastest first, as many as fit; and how many do not.

        For lines that run at import only, or inside a compiler, those that run any line of the file.
        """
        here = self.lines.get(path, {})
        names = {name for line in lines for name in here.get(line, ()) if name}
        names = names or {name for found in here.values() for name in found if name}
        ordered = sorted(names, key=lambda name: (self.seconds[name], name))
        chosen, total = [], 0.0
        for name in ordered:
            total += self.seconds[name]
            if chosen and total > within_seconds:
                break
            chosen.append(name)
        return chosen, len(ordered) - len(chosen)


class Recorder:
    """A pytest plugin: the context and the seconds of each test."""

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Generator[None, Any, Any]:
        self.coverage.switch_context(item.nodeid)
        started = time.perf_counter()
        outcome = yield
        self.seconds[item.nodeid] = time.perf_counter() - started
        self.coverage.switch_context("")
        return outcome


class Only:
    """A pytest plugin: of the tests that were found, these ones, in this order."""

    def __init__(self, names: list[str]) -> None:
        self.order = {name: place for place, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        kept = [item for item in items if item.nodeid in self.order]
        items[:] = sorted(kept, key=lambda item: self.order[item.nodeid])


def record(tree: Path, sources: list[str], arguments: list[str], output: Path) -> int:
    """Run the tests under coverage and write what `read` reads; pytest's exit code."""
    coverage = Coverage(data_file=None, source=[str(tree / source) for source in sources])
    recorder = Recorder(coverage)
    coverage.start()
    code = pytest.main(arguments, plugins=[recorder])
    coverage.stop()
    data = coverage.get_data()
    lines = {
        str(Path(file).relative_to(tree)): {str(line): names for line, names in data.contexts_by_lineno(file).items()}
        for file in data.measured_files()
    }
    output.write_text(json.dumps({"seconds": recorder.seconds, "lines": lines}))
    return int(code)


def read(path: Path) -> Tests:
    found = json.loads(path.read_text())
    lines = {file: {int(line): names for line, names in here.items()} for file, here in found["lines"].items()}
    return Tests(found["seconds"], lines)


def statement_lines(source: str, line: int) -> range:
    """The lines of the statement around a line; of one with a body its head, decorators included."""
    smallest = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body and body[0].lineno > node.lineno else node.end_lineno or node.lineno
        if first <= line <= last and (smallest == range(line, line + 1) or last - first < len(smallest)):
            smallest = range(first, last + 1)
    return smallest
