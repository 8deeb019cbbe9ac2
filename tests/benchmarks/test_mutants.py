"""The mutation run: which mutants it makes, which tests run for them, and that it tests the mutant and nothing else."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numbers


def area(radius: "int | None", log: list = []) -> "float | None":
    """2 + 2 are 4."""
    if radius is None:
        raise ValueError("no radius")
    log.append(radius)
    return float(
        radius
        * math.pi.real
        * radius
    )
'''


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_calls_raises_and_operators_are_changed_and_annotations_and_texts_are_not(benchmarks, tmp_path):
    pytest.importorskip("cosmic_ray", reason="make mutants installs it")
    from benchmarks.mutants.generation import mutants

    (tmp_path / "area.py").write_text(SOURCE)
    found = mutants(tmp_path, "area.py")
    changes = {(mutant.before, mutant.after) for mutant in found}
    assert ('raise ValueError("no radius")', "pass") in changes
    assert ("log.append(radius)", "pass") in changes
    assert ("log.append(radius)", "log") in changes
    assert ("if radius is None:", "if not radius is None:") in changes
    assert {mutant.function for mutant in found} == {"area"}
    assert {mutant.line for mutant in found} <= {10, 11, 12, 14, 15, 16}
    places = [(mutant.line, mutant.operator.split("_")[0]) for mutant in found]
    assert len(places) == len(set(places))
    assert all(mutant.code != SOURCE for mutant in found)


def test_a_line_stands_for_its_statement(benchmarks):
    from benchmarks.mutants.selection import statement_lines

    assert list(statement_lines(SOURCE, 15)) == [13, 14, 15, 16, 17]
    assert list(statement_lines(SOURCE, 10)) == [10]
    assert list(statement_lines(SOURCE, 8)) == [8]


def test_the_fastest_tests_of_a_line_come_first_and_what_does_not_fit_is_counted(benchmarks):
    from benchmarks.mutants.selection import Tests

    tests = Tests(
        {"slow": 50.0, "fast": 1.0, "middle": 5.0, "other": 2.0},
        {"a.py": {3: ["slow", "fast", "middle"], 9: ["other", ""]}},
    )
    assert tests.running("a.py", [3, 4], within_seconds=20.0) == (["fast", "middle"], 1)
    assert tests.running("a.py", [3], within_seconds=0.5) == (["fast"], 2)
    assert tests.running("a.py", [7], within_seconds=99.0) == (["fast", "other", "middle", "slow"], 0)


def test_a_job_reads_the_copy_and_a_package_from_elsewhere_is_refused(benchmarks, tmp_path, monkeypatch):
    from benchmarks.mutants.execution import Job, finished

    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "area.py").write_text("here = 3")

    def from_copy() -> int:
        sys.modules.pop("moslora", None)
        import area  # pyright: ignore[reportMissingImports]

        return area.here

    jobs = [Job(tmp_path, from_copy), Job(tmp_path, lambda: 0)]
    while any(job.process.exitcode is None for job in jobs):
        list(finished([job for job in jobs if job.process.exitcode is None]))
    assert [job.code() for job in jobs] == [3, 99]


def test_a_job_that_takes_too_long_is_ended(benchmarks, tmp_path):
    from benchmarks.mutants.execution import Job, finished

    (tmp_path / "src").mkdir()
    job = Job(tmp_path, lambda: __import__("time").sleep(600), seconds=0.2)
    assert list(finished([job])) == [job]
    assert job.code() is None
    assert not job.process.is_alive()
