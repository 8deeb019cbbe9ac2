"""Peak memory of a training step above the frozen model's, each measured in a process of its own.

Above means: the largest resident memory while stepping, minus the frozen model's own largest while it runs forward and
backward through its activations.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch

from benchmarks.peers import language_batch, optimizer_of, peer, smollm2, train_step
from benchmarks.results import Row, save

PEERS = ("none", "lora", "lora-bf16-factors", "naive", "fused-lora", "moslora")
TARGETS = {"float32": 0.50, "bfloat16": 0.30}
STEPS, REPEATS = 3, 1


def peak_bytes(name: str, dtype: str, dropout: float) -> int:
    """The largest resident memory of this process while it steps."""
    model = peer(name, smollm2(getattr(torch, dtype)), dropout=dropout).train()
    batch, optimizer = language_batch(model), optimizer_of(model)
    Path("/proc/self/clear_refs").write_text("5")  # the largest so far is forgotten: loading does not count
    for _ in range(STEPS):
        train_step(model, batch, optimizer)
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def measured(name: str, dtype: str, dropout: float) -> int:
    command = [sys.executable, "-m", "benchmarks.memory", "--peer", name, "--dtype", dtype, "--dropout", str(dropout)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}  # freed tensors leave the process at once
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return int(json.loads(output.splitlines()[-1]))


def run() -> list[Row]:
    rows, figures = [], []
    for dtype, target in TARGETS.items():
        peaks = {name: median(measured(name, dtype, 0.05) for _ in range(REPEATS)) for name in PEERS}
        above = {name: peaks[name] - peaks["none"] for name in PEERS}
        figures.append({"dtype": dtype, "peak_bytes": peaks, "above_frozen_bytes": above})
        for name in PEERS[2:]:
            goal = target if name == "moslora" else None
            rows.append(Row(f"peak memory, {dtype}: {name}", "PEFT LoRA", above[name] / above["lora"], goal))
    save("memory", {"dropout": 0.05, "tokens": 512, "repeats": REPEATS, "figures": figures}, rows)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--dropout", type=float, default=0.05)
    given = parser.parse_args()
    if given.peer:
        print(peak_bytes(given.peer, given.dtype, given.dropout))
    else:
        run()
