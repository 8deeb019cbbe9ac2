"""Errors of one adapted layer against float64, ours beside PEFT's; and the loss of both paths step by step."""

import copy
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from benchmarks.peers import language_batch, optimizer_of, peer, smollm2, train_step
from benchmarks.results import Row, save
from moslora import MosloraConfig

TOKENS, INPUTS, OUTPUTS, RANK = 512, 576, 1536, 16
CASES = [
    ("float32", None),
    ("bfloat16", None),
    ("float16", None),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
]
PARTS = ("output", "x", "lora_A", "lora_B")
STEPS = 50


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(INPUTS, OUTPUTS, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def adapted(config: Any, dtype: torch.dtype) -> Any:
    """One layer with a random B; the same numbers for every configuration, rounded to dtype first."""
    torch.manual_seed(0)
    base = Model().to(dtype)
    model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_A" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * INPUTS**-0.5)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * RANK**-0.5)
    return model


def outputs_and_gradients(model: Any, x: torch.Tensor, autocast: str | None) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", getattr(torch, autocast or "bfloat16"), enabled=autocast is not None):
        y = model(x)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    y.backward(g.to(torch.bfloat16).to(y.dtype))  # the same numbers for every dtype, the exact one included
    found = {"output": y.detach(), "x": x.grad}
    for name, parameter in model.named_parameters():
        for part in ("lora_A", "lora_B"):
            if part in name:
                found[part] = parameter.grad
    return {name: tensor.double() for name, tensor in found.items() if tensor is not None}


def run_errors() -> list[Row]:
    """The update alone: the base layer's own rounding is the same for both and is measured with it."""
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["layer"]}
    rows, figures = [], []
    for dtype, autocast in CASES:
        kind = getattr(torch, dtype)
        x = torch.randn(TOKENS, INPUTS, generator=torch.Generator().manual_seed(3)).to(kind)
        peft = adapted(LoraConfig(**lora), kind)
        ours = adapted(MosloraConfig(**lora, mixer="identity", mixer_trainable=False), kind)
        exact = outputs_and_gradients(copy.deepcopy(peft).double(), x.double(), None)
        errors = {}
        for name, model in (("peft", peft), ("moslora", ours)):
            found = outputs_and_gradients(model, x, autocast)
            errors[name] = {part: ((found[part] - exact[part]).norm() / exact[part].norm()).item() for part in exact}
        figures.append({"dtype": dtype, "autocast": autocast, "relative_errors": errors})
        label = f"error against float64, {dtype} base, {'autocast' if autocast else 'no autocast'}"
        if autocast:
            worst = max(errors["moslora"][part] / errors["peft"][part] for part in PARTS)
            rows.append(Row(f"{label}: the largest ratio", "PEFT LoRA", worst, 2.0))
            continue
        for part in PARTS:
            note = f"PEFT's {errors['peft'][part]:.2g}"
            rows.append(Row(f"{label}: {part}", "float64", errors["moslora"][part], unit="", note=note))
    save("precision", {"figures": figures}, rows)
    return rows


def run_agreement() -> list[Row]:
    """50 steps in float32 without dropout: the fused and the plain path from the same start."""
    losses: dict[str, list[float]] = {}
    for name in ("moslora", "moslora-plain"):
        model = peer(name, smollm2(torch.float32), dropout=0.0).train()
        batch, optimizer = language_batch(model, rows=2, length=32), optimizer_of(model)
        losses[name] = []
        for _ in range(STEPS):
            train_step(model, batch, optimizer)
            with torch.no_grad():
                losses[name].append(model(**batch).loss.item())
    gaps = [abs(one / other - 1) for one, other in zip(*losses.values(), strict=True)]
    what = f"largest relative gap of the loss, {STEPS} steps in float32"
    rows = [Row(what, "the plain path", max(gaps), 1e-4, unit="")]
    save("agreement", {"steps": STEPS, "losses": losses}, rows)
    return rows


def run() -> list[Row]:
    return run_errors() + run_agreement()


if __name__ == "__main__":
    for row in run():
        print(row)
