"""Merging, saving and loading an adapter on SmolLM2, against PEFT's own on plain LoRA.

PEFT has no folding; what comes nearest is its conversion of another method (here LoHa) to LoRA, by an SVD of each
module, which takes so long that folding is timed once.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, convert_to_lora

from benchmarks.peers import peer, smollm2
from benchmarks.results import Row, save
from benchmarks.timing import interleaved, ratio
from moslora import fold

ROUNDS = 9


def seconds_apart(prepare: dict[str, Any], act: dict[str, Any], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each action alone, on something prepared anew each time, interleaved."""
    seconds: dict[str, list[float]] = {name: [] for name in act}
    for number in range(rounds + 1):
        for name in list(act) if number % 2 else list(act)[::-1]:
            given = prepare[name]()
            started = time.perf_counter()
            act[name](given)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def adapted(name: str) -> Any:
    model = peer(name, smollm2(torch.float32)).eval()
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.02)
    return model


def run() -> list[Row]:
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        models = {name: adapted(name) for name in ("lora", "moslora")}
        folders = {name: Path(scratch) / name for name in models}
        for name, model in models.items():
            model.save_pretrained(folders[name])
        figures["merge"] = seconds_apart(
            {name: partial(adapted, name) for name in models},
            {name: lambda model: model.merge_and_unload(safe_merge=True) for name in models},
            rounds=ROUNDS,
        )
        figures["save"] = interleaved(
            {name: partial(model.save_pretrained, folders[name]) for name, model in models.items()}, what="saving"
        )
        figures["load"] = seconds_apart(
            {name: lambda: smollm2(torch.float32) for name in models},
            {name: lambda base, name=name: PeftModel.from_pretrained(base, str(folders[name])) for name in models},
            rounds=ROUNDS,
        )
        other = peer("loha", smollm2(torch.float32)).eval()
        figures["fold"] = interleaved(
            {"moslora": lambda: fold(models["moslora"]), "lora": lambda: convert_to_lora(other, rank=16)},
            what="folding", rounds=1, warm_up=0,
        )  # fmt: skip
    against = {"merge": "PEFT LoRA, merge_and_unload", "save": "PEFT LoRA", "load": "PEFT LoRA"}
    for what, seconds in figures.items():
        middle, low, high = ratio(seconds, "moslora", "lora")
        rows.append(Row(f"{what}, SmolLM2", against.get(what, "PEFT convert_to_lora, of LoHa"), middle, 1.0, low, high))
    save("exports", {"seconds": figures}, rows)
    return rows


if __name__ == "__main__":
    for row in run():
        print(row)
