"""Run the benchmarks, each in a process of its own, and print the table: `python -m benchmarks [NAME...]`.

python -m benchmarks --data PATH --adapter RUN_FOLDER   # all of them; choice scoring needs both options
python -m benchmarks memory startup                     # some of them
python -m benchmarks --table                            # print the stored results
"""

import argparse
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.results import Row, load_rows

NAMES = (
    "training_step",
    "decoder_layer",
    "crossover",
    "memory",
    "choice_scoring",
    "exports",
    "startup",
    "precision",
    "paths",
    "null_simulation",
    "judging_simulation",
    "vision",
    "subject",
)

HEADER = ("what", "against", "reached", "range", "target", "met")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data", help="folder of the commonsense sets, for choice_scoring")
    parser.add_argument("--adapter", help="folder of a finished run of the recipe demo, for choice_scoring")
    parser.add_argument("--table", action="store_true", help="only print what is stored in benchmarks/results")
    parser.add_argument("--markdown", action="store_true", help="the same in Markdown, for docs/performance.md")
    given = parser.parse_args()
    for name in [] if given.table or given.markdown else given.names or NAMES:
        command = [sys.executable, "-m", f"benchmarks.{name}"]
        if name == "choice_scoring":
            if not (given.data and given.adapter):
                print("choice_scoring is left out: it needs --data and --adapter", file=sys.stderr)
                continue
            command += ["--data", given.data, "--adapter", given.adapter]
        print(f"benchmark {name}", file=sys.stderr)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [HEADER, *(cells(row) for _, row in load_rows())]
    if given.markdown:
        lines.insert(1, tuple("---" for _ in HEADER))
        print("\n".join(f"| {' | '.join(line)} |" for line in lines))
        return
    shown = Table(*HEADER, title="benchmarks (ratios: lower is faster)")
    for line in lines[1:]:
        shown.add_row(*line)
    Console(width=150).print(shown)


def cells(row: Row) -> tuple[str, ...]:
    target = "" if row.target is None else f"{'≥' if row.at_least else '≤'} {row.target:g}"
    spread = "" if row.low is None or row.high is None else f"{row.low:.3g} to {row.high:.3g}"
    met = {None: "", True: "yes", False: "no"}[row.is_met]
    unit = "" if row.unit == "x" else f" {row.unit}"
    return row.what, row.against, f"{row.reached:.3g}{unit}", spread, target, met


if __name__ == "__main__":
    main()
