"""200 steps of the demo, with dropout, on the fused and on the plain path: do they end at the same loss?

For each seed both paths train from the same start on the same questions in the same order; dropout falls differently,
since each path draws its own. What counts is the loss on held-out training questions at the end. Nothing is timed,
so two runs go at once, each on one thread.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks.results import Row, save
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe

STEPS, DROPOUT, SEEDS = 200, 0.05, (1, 2, 3)
CHANGES = [
    f"training.max_steps={STEPS}",
    f"adapter.lora_dropout={DROPOUT}",
    "data.validation_samples=384",
    "evaluation={tasks: []}",
]
PATHS = {"fused": True, "plain": False}


def held_out_loss(seed: int, path: str, scratch: str) -> float:
    fused = PATHS[path]
    recipe = load_recipe("demo", [*CHANGES, f"seed={seed}", f"adapter.fused={str(fused).lower()}"])
    loss = run_recipe(recipe, Path(scratch) / f"{seed}-{fused}").validation_loss
    assert loss is not None, "the recipe sets validation samples apart"
    return loss


def run() -> list[Row]:
    with (
        tempfile.TemporaryDirectory() as scratch,
        ProcessPoolExecutor(
            len(PATHS), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
    ):
        found = {(seed, path): pool.submit(held_out_loss, seed, path, scratch) for seed in SEEDS for path in PATHS}
        losses = {path: [found[seed, path].result() for seed in SEEDS] for path in PATHS}
    gap = abs(mean(losses["fused"]) - mean(losses["plain"]))
    spread = mean(stdev(found) for found in losses.values())
    what = f"held-out loss after {STEPS} steps of the demo: gap of the means / spread of the seeds"
    rows = [Row(what, "the plain path", gap / spread, 1.0, note=f"gap {gap:.4f}, spread {spread:.4f}")]
    save("paths", {"steps": STEPS, "dropout": DROPOUT, "seeds": SEEDS, "losses": losses}, rows)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
