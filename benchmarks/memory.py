"""Peak memory of a training step above the frozen model's, each measured in a process of its own.

Above means: the largest resident memory while stepping, minus the frozen model's own largest while it runs forward and
backward through its activations. `run` measures SmolLM2, `run_growth` four of its layers over tokens and ranks.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks.decoder_layer import DROPOUT, POINTS, REPORTED_RANKS, layer_step
from benchmarks.peers import language_batch, optimizer_of, peer, smollm2, train_step
from benchmarks.results import Row, save

PEERS = ("none", "lora", "lora-bf16-factors", "naive", "fused-lora", "moslora")
TARGETS = {"float32": 0.50, "bfloat16": 0.30}
STEPS = 3


def model_step(name: str, dtype: str) -> Callable[[], None]:
    model = peer(name, smollm2(getattr(torch, dtype)), dropout=DROPOUT).train()
    return partial(train_step, model, language_batch(model), optimizer_of(model))


def peak_bytes(step: Callable[[], None]) -> int:
    """The largest resident memory of this process while it steps."""
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far is forgotten: loading does not count
    for _ in range(STEPS):
        step()
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measured(
    name: str, dtype: str, *, tokens: int | None = None, rank: int | None = None, path: str | None = None
) -> int:
    """The same in a process of its own; of four layers if tokens and rank are given, else of the whole model.

    `path` is the process's PYTHONPATH, where it is another one.
    """
    given = [] if tokens is None else ["--tokens", str(tokens), "--rank", str(rank)]
    return in_own_process("benchmarks.memory", "--peer", name, "--dtype", dtype, *given, path=path)


def in_own_process(module: str, *arguments: str, path: str | None = None) -> int:
    """The number that a module prints last when a process of its own runs it with these arguments."""
    # Freed tensors leave the process at once; one thread, so that two processes can run side by side.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144", "OMP_NUM_THREADS": "1"}
    environment |= {} if path is None else {"PYTHONPATH": path}
    command = [sys.executable, "-m", module, *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return int(json.loads(output.splitlines()[-1]))


def measured_each(names: Sequence[str], dtype: str, **layers: int) -> dict[str, int]:
    return side_by_side(names, lambda name: measured(name, dtype, **layers))


def side_by_side(names: Sequence[str], measure: Callable[[str], int]) -> dict[str, int]:
    """What `measure` gives for each name, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(measure, names), strict=True))


def run() -> list[Row]:
    rows, figures = [], []
    for dtype, target in TARGETS.items():
        peaks = measured_each(PEERS, dtype)
        above = {name: peaks[name] - peaks["none"] for name in PEERS}
        figures.append({"dtype": dtype, "peak_bytes": peaks, "above_frozen_bytes": above})
        for name in PEERS[2:]:
            goal = target if name == "moslora" else None
            rows.append(Row(f"peak memory, {dtype}: {name}", "PEFT LoRA", above[name] / above["lora"], goal))
    save("memory", {"dropout": DROPOUT, "tokens": 512, "figures": figures}, rows)
    return rows


def run_growth() -> list[Row]:
    rows, figures = [], []
    for dtype in TARGETS:
        for tokens, rank in POINTS:
            peaks = measured_each(("none", "lora", "moslora"), dtype, tokens=tokens, rank=rank)
            ratio = (peaks["moslora"] - peaks["none"]) / (peaks["lora"] - peaks["none"])
            figures.append({"dtype": dtype, "tokens": tokens, "rank": rank, "ratio": ratio, "peak_bytes": peaks})
        within = [f["ratio"] for f in figures if f["dtype"] == dtype and f["rank"] not in REPORTED_RANKS]
        what = f"growth of memory, {dtype}: the largest ratio"
        rows.append(Row(what, "PEFT LoRA", max(within), 1.05, min(within), max(within)))
    save("growth_memory", {"dropout": DROPOUT, "layers": 4, "figures": figures}, rows)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--rank", type=int)
    given = parser.parse_args()
    if given.peer is None:
        run()
        run_growth()
    elif given.tokens is None:
        print(peak_bytes(model_step(given.peer, given.dtype)))
    else:
        print(peak_bytes(layer_step(given.peer, tokens=given.tokens, rank=given.rank, dtype=given.dtype)))
