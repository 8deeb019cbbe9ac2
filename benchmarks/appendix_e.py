"""Is a mixer more than an initialisation of A? The paper's appendix E on SmolLM2: `python -m benchmarks.appendix_e`.

Every mixer is trained beside its own folded form, which starts with A' = M·A and no mixer: the same update B·M·A at the
start (none, as B is zero), the same samples, the same optimizer. The figure is how far apart the updates of all layers
are after the last step, relative to the folded form's: 0 is the same trajectory, float32 rounding is about 1e-6.
"""

from functools import cache
from typing import Any

import torch
from peft import get_peft_model
from transformers import AutoTokenizer

from benchmarks.naive import TARGETS
from benchmarks.peers import smollm2, train_step
from benchmarks.results import save
from moslora import MosloraConfig
from moslora.data.everyday import everyday
from moslora.data.prompts import build_prompt
from moslora.runs.models import resolve_model

STEPS, SAMPLES = 20, 4
CASES = [("orthogonal", False), ("kaiming", False), ("orthogonal", True), ("kaiming", True)]
OPTIMIZERS = {"SGD": (torch.optim.SGD, 0.1), "Adam": (torch.optim.Adam, 1e-3)}


def adapted(mixer: str, *, is_trained: bool) -> Any:
    torch.manual_seed(0)
    config = MosloraConfig(r=16, lora_alpha=32, target_modules=TARGETS, mixer=mixer, mixer_trainable=is_trained)
    return get_peft_model(smollm2(torch.float32), config)


def folded(model: Any) -> Any:
    """The same adapter with the mixer in A, and none to train."""
    other = adapted("identity", is_trained=False)
    for source, target in zip(layers(model), layers(other), strict=True):
        with torch.no_grad():
            mixed = source.mixer_matrix("default") @ source.lora_A["default"].weight
            target.lora_A["default"].weight.copy_(mixed)
    return other


def layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if hasattr(module, "mixer_matrix")]


@cache
def batches() -> list[dict[str, torch.Tensor]]:
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("smollm2"), padding_side="right")
    texts = [build_prompt(sample, style="plain") + sample["output"] for sample in everyday("train")[: STEPS * SAMPLES]]
    found = []
    for start in range(0, len(texts), SAMPLES):
        batch = dict(tokenizer(texts[start : start + SAMPLES], padding=True, return_tensors="pt"))
        found.append(batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)})
    return found


def train(model: Any, optimizer_name: str) -> list[torch.Tensor]:
    """The update of every layer after the last step."""
    kind, rate = OPTIMIZERS[optimizer_name]
    optimizer = kind([parameter for parameter in model.parameters() if parameter.requires_grad], lr=rate)
    for batch in batches():
        train_step(model, batch, optimizer)
    return [layer.get_delta_weight("default").detach().double() for layer in layers(model)]


def loss(model: Any) -> float:
    with torch.no_grad():
        return model(**batches()[0]).loss.item()


def distance(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    apart = sum((a - b).square().sum().item() for a, b in zip(one, other, strict=True))
    return (apart / sum(b.square().sum().item() for b in other)) ** 0.5


def run() -> None:
    figures = []
    for optimizer_name in OPTIMIZERS:
        for mixer, is_trained in CASES:
            model = adapted(mixer, is_trained=is_trained)
            start, before = folded(model), loss(model)
            found = distance(train(model, optimizer_name), train(start, optimizer_name))
            figures.append({"mixer": mixer, "is_trained": is_trained, "optimizer": optimizer_name, "distance": found})
            figures[-1] |= {"loss_before": before, "loss": loss(model), "loss_folded": loss(start)}
            kind = f"{'learned' if is_trained else 'fixed'} {mixer}"
            print(f"{optimizer_name:6}{kind:20}updates apart by {found:.3g} after {STEPS} steps", flush=True)
    save("appendix_e", {"steps": STEPS, "samples_a_step": SAMPLES, "figures": figures})


if __name__ == "__main__":
    run()
