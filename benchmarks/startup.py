"""Seconds until `moslora --help` has printed and `import moslora` has returned, in fresh processes."""

import subprocess
import sys
import time
from statistics import median

from benchmarks.results import Row, save

ROUNDS = 15
COMMANDS = {
    "python": [sys.executable, "-c", "pass"],
    "import moslora": [sys.executable, "-c", "import moslora"],
    "moslora --help": [sys.executable, "-m", "moslora", "--help"],
}


def run() -> list[Row]:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(ROUNDS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                seconds[name].append(time.perf_counter() - started)
    middle = {name: median(values) for name, values in seconds.items()}
    helped = seconds["moslora --help"]
    rows = [
        Row("moslora --help", "-", middle["moslora --help"], 0.5, min(helped), max(helped), unit="s"),
        Row("import moslora", "bare Python", middle["import moslora"] - middle["python"], 0.1, unit="s more"),
    ]
    save("startup", {"seconds": seconds}, rows)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
