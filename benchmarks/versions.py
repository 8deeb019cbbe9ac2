"""A training step of two versions of moslora in one run: `python -m benchmarks.versions FOLDER`, the other's clone.

Each version runs in a process of its own (`src` of that tree on the path, the benchmarks of this one), and so does
PEFT's LoRA; the three take turns, a step at a time, in a new order each round. Ratios are taken within a round.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.memory import STEPS as MEMORY_STEPS
from benchmarks.memory import measured
from benchmarks.peers import language_batch, optimizer_of, peer, smollm2, train_step
from benchmarks.results import Row, save
from benchmarks.training_step import ROUNDS, SETTINGS

HERE = Path(__file__).parents[1]


def path_of(source: Path) -> str:
    """What a process imports: that tree's package, and these benchmarks."""
    return f"{source / 'src'}:{HERE}"


class Worker:
    """A process that makes a step of one candidate when it is told to."""

    def __init__(self, source: Path, name: str, *, dtype: str, dropout: float) -> None:
        command = [sys.executable, "-m", "benchmarks.versions", "--serve", name, dtype, str(dropout)]
        environment = {**os.environ, "PYTHONPATH": path_of(source)}
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.seconds()  # warm

    def seconds(self) -> float:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def serve(name: str, dtype: str, dropout: float) -> None:
    model = peer(name, smollm2(getattr(torch, dtype)), dropout=dropout).train()
    step = partial(train_step, model, language_batch(model), optimizer_of(model))
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        print(time.perf_counter() - started, flush=True)


def step_rows(other: Path, *, rounds: int) -> tuple[list[Row], list[dict[str, Any]]]:
    rows, figures = [], []
    for dtype, dropout, _ in SETTINGS:
        sources = {"lora": (HERE, "lora"), "here": (HERE, "moslora"), "there": (other, "moslora")}
        workers = {key: Worker(*source, dtype=dtype, dropout=dropout) for key, source in sources.items()}
        seconds: dict[str, list[float]] = {key: [] for key in workers}
        order, generator = list(workers), random.Random(0)
        for _ in range(rounds):
            generator.shuffle(order)
            for key in order:
                seconds[key].append(workers[key].seconds())
        for worker in workers.values():
            worker.close()
        figures.append({"dtype": dtype, "dropout": dropout, "seconds": seconds})
        for key in ("here", "there"):
            ratios = [one / two for one, two in zip(seconds[key], seconds["lora"], strict=True)]
            what = f"training step, {dtype}, dropout {dropout:g}: {key}"
            rows.append(Row(what, "PEFT LoRA", median(ratios), None, min(ratios), max(ratios)))
    return rows, figures


def memory_rows(other: Path) -> list[Row]:
    rows = []
    for dtype in ("float32", "bfloat16"):
        frozen, lora = (measured(name, dtype, path=path_of(HERE)) for name in ("none", "lora"))
        for key, source in (("here", HERE), ("there", other)):
            ratio = (measured("moslora", dtype, path=path_of(source)) - frozen) / (lora - frozen)
            rows.append(Row(f"peak memory, {dtype}: {key}", "PEFT LoRA", ratio))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", type=Path, help="a clone or worktree of the other version")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        name, dtype, dropout = given.serve
        serve(name, dtype, float(dropout))
        return
    rows, figures = step_rows(given.other, rounds=given.rounds)
    rows += memory_rows(given.other)
    save("versions", {"figures": figures, "memory_steps": MEMORY_STEPS}, rows)
    for row in rows:
        print(f"{row.what:60} {row.reached:.3f}")


if __name__ == "__main__":
    main()
