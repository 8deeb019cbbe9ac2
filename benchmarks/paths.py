"""200 steps of the demo, with dropout, on the fused and on the plain path: do they end at the same loss?

For each seed both paths train from the same start on the same questions in the same order; dropout falls differently,
since each path draws its own. What counts is the loss on held-out training questions at the end.
"""

import tempfile
from pathlib import Path
from statistics import mean, stdev

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


def held_out_loss(seed: int, *, fused: bool, scratch: str) -> float:
    recipe = load_recipe("demo", [*CHANGES, f"seed={seed}", f"adapter.fused={str(fused).lower()}"])
    loss = run_recipe(recipe, Path(scratch) / f"{seed}-{fused}").validation_loss
    assert loss is not None, "the recipe sets validation samples apart"
    return loss


def run() -> list[Row]:
    losses: dict[str, list[float]] = {path: [] for path in PATHS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS:
            for path, fused in PATHS.items():
                losses[path].append(held_out_loss(seed, fused=fused, scratch=scratch))
                print(seed, path, losses[path][-1], flush=True)
    gap = abs(mean(losses["fused"]) - mean(losses["plain"]))
    spread = mean(stdev(found) for found in losses.values())
    what = f"held-out loss after {STEPS} steps of the demo: gap of the means / spread of the seeds"
    rows = [Row(what, "the plain path", gap / spread, 1.0, note=f"gap {gap:.4f}, spread {spread:.4f}")]
    save("paths", {"steps": STEPS, "dropout": DROPOUT, "seeds": SEEDS, "losses": losses}, rows)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
