"""Ready for a GPU: is every layer right on the device, and what does a training step cost? `python -m benchmarks.gpu`.

First every kind of layer is held against float64, then LLaMA-3-8B's shapes with random weights are trained for a few
steps: rank 16 on q, k, v, up, down, 16 × 256 tokens. It needs torch 2.6 or later, transformers and peft, no hub and no
network, a card of 80 GB, and under 8 minutes. What is found goes into the JSON file after every part.

python -m benchmarks.gpu                        # on the first CUDA device
python -m benchmarks.gpu --device cpu --tiny    # the same program on tiny shapes, to try it anywhere
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.correctness import check_all, failures
from benchmarks.gpu.kinds import COMPILED, EAGER
from benchmarks.gpu.record import Budget, Record
from benchmarks.gpu.training import ADAPTERS, ROUNDS, SIZES, measure_all

KEPT_SECONDS = 75.0  # for the compiled layers, after the training steps
OUTPUT = Path(__file__).parents[1] / "results" / "gpu.json"


def main() -> int:
    given = parse()
    if given.device != "cpu" and not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA device here (try --device cpu --tiny, on tiny shapes)", file=sys.stderr)
        return 2
    if given.device not in ("cpu", "cuda"):
        torch.cuda.set_device(given.device)  # what memory and synchronising are asked of; "cuda" is the current one
    warnings.filterwarnings("ignore", "LoRA adapter added to ConvNd layer with groups")
    warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)  # PEFT reads it
    size = "tiny" if given.tiny else "LLaMA-3-8B"
    backend = "eager" if given.tiny else "inductor"
    budget = Budget(60 * given.minutes)
    shape = SIZES[size]
    settings = {"device": given.device, "model": size, **vars(shape), "backend": backend, "minutes": given.minutes}
    record = Record(given.output, **settings)
    check_all(EAGER, given.device, record, budget, backend=backend)
    rounds = 2 if given.tiny else ROUNDS
    measure_all(size, given.device, record, budget.less(KEPT_SECONDS), backend=backend, rounds=rounds)
    check_all(COMPILED, given.device, record, budget, backend=backend)
    record.finish()
    print_table(record.found)
    print(f"written: {given.output}")
    return 1 if failures(record) else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ..., or cpu (default: cuda)")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny shapes and no code generation, for trying the program"
    )
    parser.add_argument(
        "--minutes", type=float, default=7.0, help="what does not fit is left out and named (default 7)"
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="the JSON file (default: benchmarks/results/gpu.json)"
    )
    return parser.parse_args()


def print_table(found: dict[str, Any]) -> None:
    """The checks counted, and for each setting the steps beside PEFT's LoRA."""
    results = [entry["result"] for entry in found["checks"]]
    print(f"\n{found['card']['name']}, {found['settings']['model']}, {found['date']}")
    print("correctness: " + ", ".join(f"{results.count(name)} {name}" for name in ("passed", "failed", "refused")))
    built = [entry for entry in found["steps"] if "gradient_checkpointing" in entry]
    settings = {(entry["dropout"], entry["gradient_checkpointing"]) for entry in built}
    for dropout, has_checkpoints in sorted(settings, key=lambda pair: (-pair[0], pair[1])):
        print(f"\ndropout {dropout:g}, {'with' if has_checkpoints else 'without'} gradient checkpointing")
        print(f"{'adapter':20}{'median step':>12}{'of LoRA':>9}{'peak':>11}{'of LoRA':>9}")
        here = {
            entry["adapter"]: entry
            for entry in built
            if (entry["dropout"], entry["gradient_checkpointing"]) == (dropout, has_checkpoints)
        }
        for name in ADAPTERS:
            if name in here:
                print(f"{name:20}{cells(here[name], here.get('lora', {}))}")
    for entry in found["steps"]:
        if entry not in built:
            print(f"not built: {entry['adapter']}, dropout {entry['dropout']:g}: {entry['reason']}")
    for what in found["left_out"]:
        print(f"left out: {what}")


def cells(entry: dict[str, Any], lora: dict[str, Any]) -> str:
    if entry["result"] != "measured":
        return f"  {entry['reason']}"
    seconds, peak = entry["median_seconds"], entry["peak_bytes"]
    shown = f"{1000 * seconds:9.1f} ms{share(seconds, lora.get('median_seconds'))}"
    return shown if peak is None else f"{shown}{peak / 2**30:7.2f} GiB{share(peak, lora.get('peak_bytes'))}"


def share(value: float, of: float | None) -> str:
    return f"{value / of:9.3f}" if of else " " * 9


if __name__ == "__main__":
    sys.exit(main())
