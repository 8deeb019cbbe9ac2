"""A training step on SmolLM2-135M, rank 16 on q, k, v, up, down, 4 × 128 tokens, against PEFT and the naive way."""

from functools import partial
from typing import Any

import torch

from benchmarks.peers import language_batch, optimizer_of, peer, smollm2, train_step
from benchmarks.results import Row, save
from benchmarks.timing import interleaved, ratio

ROUNDS = 15  # candidates differ by a few hundredths, rounds by more
# dtype, dropout: the candidates beside PEFT's LoRA and ours, and the targets of ours against each
SETTINGS: list[tuple[str, float, dict[str, float | None]]] = [
    ("bfloat16", 0.05, {"lora": 0.73, "lora-bf16-factors": None, "naive": None}),
    ("float32", 0.05, {"lora": 0.90, "naive": 0.90, "dora": 0.65, "loha": None, "lokr": None}),
    ("bfloat16", 0.0, {"lora": 0.88, "lora-bf16-factors": None}),
    ("float32", 0.0, {"lora": 0.95}),
]
ALWAYS = ("none", "fused-lora", "moslora")


def candidates(dtype: str, dropout: float, names: list[str]) -> dict[str, Any]:
    steps = {}
    for name in names:
        model = peer(name, smollm2(getattr(torch, dtype)), dropout=dropout).train()
        steps[name] = partial(train_step, model, language_batch(model), optimizer_of(model))
    return steps


def run() -> list[Row]:
    rows, figures = [], []
    for dtype, dropout, targets in SETTINGS:
        label = f"{dtype}, dropout {dropout:g}"
        steps = candidates(dtype, dropout, [*targets, *ALWAYS])
        seconds = interleaved(steps, what=f"training step, {label}", rounds=ROUNDS)
        figures.append({"dtype": dtype, "dropout": dropout, "seconds": seconds})
        for against, target in targets.items():
            middle, low, high = ratio(seconds, "moslora", against)
            rows.append(Row(f"training step, {label}", f"{against}", middle, target, low, high))
        for name in ("fused-lora", "none"):
            middle, low, high = ratio(seconds, name, "lora")
            rows.append(Row(f"training step, {label}: {name}", "lora", middle, None, low, high))
    save("training_step", {"tokens": 512, "rank": 16, "figures": figures}, rows)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
