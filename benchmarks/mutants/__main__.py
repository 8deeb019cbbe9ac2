"""How many small faults in the core and the adapter the tests notice: `make mutants`.

A mutant is the source with one small change, made by cosmic-ray's operators. Each is tested by the tests that run the
changed line, the fastest first, until one fails. Mutants come in a random order that is always the same, so a run that
its time cuts off is a fair sample. What is found goes into the JSON file after every mutant.

python -m benchmarks.mutants                                    # core and adapter, two hours
python -m benchmarks.mutants src/moslora/core/mixers.py --tests tests/core --minutes 5
python -m benchmarks.mutants --survivors                        # again those that lived, after tests were added
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
sys.dont_write_bytecode = True  # a mutant can have the size and the second of the one before it

import pytest  # noqa: E402

from benchmarks.mutants.execution import QUIET, Job, copy_tree, finished, preload  # noqa: E402
from benchmarks.mutants.generation import Mutant, mutants  # noqa: E402
from benchmarks.mutants.selection import Only, Tests, read, record, statement_lines  # noqa: E402

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "benchmarks" / "results" / "mutants.json"
EQUIVALENT = Path(__file__).with_name("equivalent.json")
SOURCES = ["src/moslora/core", "src/moslora/adapter"]
TESTS = ["tests/core", "tests/adapter"]
LEAST_SECONDS = 20.0  # a mutant may take this long, or SLOWNESS times what its tests took without one
SLOWNESS = 5.0

Entry = dict[str, Any]
Key = tuple[str, str, str, str, int]


def main() -> int:
    given = parse()
    before = json.loads(given.output.read_text()) if given.survivors else {"mutants": [], "not_tested": 0}
    again = {key(entry) for entry in before["mutants"] if entry["result"] == "survived"}
    wanted = [mutant for path in files(given.sources) for mutant in mutants(ROOT, path)]
    wanted = [mutant for mutant in wanted if not given.survivors or key(vars(mutant)) in again]
    random.Random(0).shuffle(wanted)
    preload()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trees = [copy_tree(ROOT, Path(scratch) / str(number)) for number in range(given.jobs)]
        tests = recorded(trees[0], given.sources, given.tests)
        found = before["mutants"]
        untested = run(wanted, trees, tests, found, given, left_before=before["not_tested"])
    print_table(found, untested)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", default=SOURCES, help="files or folders (default: core and adapter)")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="default: tests/core tests/adapter")
    parser.add_argument("--minutes", type=float, default=120.0, help="of testing mutants (default 120)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of tests for one mutant at most (default 60)")
    parser.add_argument("--jobs", type=int, default=1, help="mutants tested at a time (default 1)")
    parser.add_argument("--survivors", action="store_true", help="only those that lived through the stored run")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: benchmarks/results/mutants.json")
    return parser.parse_args()


def files(sources: list[str]) -> list[str]:
    """The Python files that are named, or lie in the folders that are."""
    found: set[Path] = set()
    for source in sources:
        found |= set((ROOT / source).rglob("*.py")) if (ROOT / source).is_dir() else {ROOT / source}
    return sorted(str(path.relative_to(ROOT)) for path in found)


def key(entry: dict[str, Any]) -> Key:
    """What names a mutant although lines move."""
    return entry["path"], entry["function"], entry["before"], entry["after"], entry.get("number", 1)


def recorded(tree: Path, sources: list[str], tests: list[str]) -> Tests:
    """The tests' own run, without a mutant; ends the program if they fail."""
    print("the tests without a mutant, under coverage", flush=True)
    output = tree / "tests.json"
    folders = sorted({str(Path(source).parent) if source.endswith(".py") else source for source in sources})
    job = Job(tree, partial(record, tree, folders, [*QUIET, *tests], output))
    list(finished([job]))
    if job.code() != 0:
        sys.exit(f"the tests fail without a mutant:\n{job.log.read_text()[-2000:]}")
    return read(output)


def run(
    wanted: list[Mutant],
    trees: list[Path],
    tests: Tests,
    found: list[Entry],
    given: argparse.Namespace,
    *,
    left_before: int,
) -> int:
    """Test the mutants, as many at a time as there are trees, until the time is over; how many were never tested.

    What is found is added to `found`, in the place of what an earlier run found, which left `left_before` untested.
    """
    ends, waiting, idle = time.monotonic() + 60 * given.minutes, list(reversed(wanted)), list(trees)
    running: dict[Job, tuple[Mutant, Entry]] = {}
    while running or (waiting and time.monotonic() < ends):
        while idle and waiting and time.monotonic() < ends:
            mutant = waiting.pop()
            job, entry = start(mutant, idle.pop(), tests, within_seconds=given.seconds)
            running[job] = mutant, entry
        for job in list(finished(list(running))):
            mutant, entry = running.pop(job)
            entry |= {"result": result(job), "seconds": round(time.monotonic() - job.started, 2)}
            shutil.copy(ROOT / mutant.path, job.tree / mutant.path)
            idle.append(job.tree)
            found[:] = [other for other in found if key(other) != key(entry)] if given.survivors else found
            found.append(entry)
            untested = left_before if given.survivors else len(waiting) + len(running)
            store(found, untested, given)
            shown = f"{mutant.path}:{mutant.line}  {mutant.before}  →  {mutant.after}"
            print(f"{len(found)}  {entry['result']:9}{entry['seconds']:6.1f} s  {shown}", flush=True)
    return left_before if given.survivors else len(waiting)


def start(mutant: Mutant, tree: Path, tests: Tests, *, within_seconds: float) -> tuple[Job, Entry]:
    lines = statement_lines((ROOT / mutant.path).read_text(encoding="utf-8"), mutant.line)
    names, left_out = tests.running(mutant.path, lines, within_seconds=within_seconds)
    (tree / mutant.path).write_text(mutant.code, encoding="utf-8")
    paths = sorted({name.partition("::")[0] for name in names})
    arguments = [*QUIET, "-x", f"--basetemp={tree / 'tmp'}", *paths]
    seconds = LEAST_SECONDS + SLOWNESS * sum(tests.seconds[name] for name in names)
    entry = {name: value for name, value in vars(mutant).items() if name != "code"}
    entry |= {"tests": len(names), "tests_left_out": left_out}
    return Job(tree, lambda: int(pytest.main(arguments, plugins=[Only(names)])), seconds=seconds), entry


def result(job: Job) -> str:
    """Survived if every test passed or none was found; all else, a file that cannot be imported too, is death."""
    code = job.code()
    if code == 99:
        sys.exit(job.log.read_text()[-500:])
    return "timeout" if code is None else "survived" if code in (0, 5) else "killed"


def store(found: list[Entry], untested: int, given: argparse.Namespace) -> None:
    content = {
        "name": "mutants",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("cosmic-ray", "torch", "peft", "transformers")},
        "tests": given.tests,
        "seconds_of_tests": given.seconds,
        "not_tested": untested,
        "files": summary(found),
        "mutants": found,
    }
    temporary = given.output.with_name(f".{given.output.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(given.output)


def reasons() -> dict[Key, str]:
    """Why mutants are the same program: each was read, and a reason written down."""
    return {key(entry): entry["why"] for entry in json.loads(EQUIVALENT.read_text(encoding="utf-8"))}


def summary(found: list[Entry]) -> dict[str, dict[str, float]]:
    """Counts by file and in all, and the share noticed of those that are another program."""
    known, lines = reasons(), {}
    for path in [*sorted({entry["path"] for entry in found}), "all"]:
        here = [entry for entry in found if path in (entry["path"], "all")]
        living = [entry for entry in here if entry["result"] == "survived"]
        same = sum(key(entry) in known for entry in living)
        noticed = len(here) - len(living)
        lines[path] = {
            "mutants": len(here),
            "noticed": noticed,
            "equivalent": same,
            "survived": len(living) - same,
            "share": round(noticed / max(1, len(here) - same), 3),
        }
    return lines


def print_table(found: list[Entry], untested: int) -> None:
    """The summary, then every mutant that lived."""
    print(f"\n{'file':44}{'mutants':>8}{'noticed':>9}{'equivalent':>12}{'survived':>10}{'share':>8}")
    for path, line in summary(found).items():
        counts = f"{line['mutants']:8}{line['noticed']:9}{line['equivalent']:12}{line['survived']:10}"
        print(f"{path:44}{counts}{line['share']:8.1%}")
    known = reasons()
    living = [entry for entry in found if entry["result"] == "survived"]
    for entry in sorted(living, key=lambda entry: (entry["path"], entry["line"])):
        why = f"equivalent: {known[key(entry)]}" if key(entry) in known else "survived"
        print(f"{entry['path']}:{entry['line']}  {entry['before']}  →  {entry['after']}  ({why})")
    if untested:
        total = untested + len(found)
        print(f"{untested} of {total} were not tested for want of time: the shares are of a random sample")


if __name__ == "__main__":
    sys.exit(main())
