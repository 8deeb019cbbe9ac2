"""Every kind of layer in every precision on the device, against float64: output, gradients, merge, fold, dropout."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from peft import get_peft_model
from torch import nn

import moslora
from benchmarks.gpu.kinds import KINDS, RANK, Kind, Regime, quantised_kinds
from benchmarks.gpu.record import Budget, Record, reason
from benchmarks.gpu.reference import (
    Tensors,
    adapter_tensors,
    base_weight,
    exact,
    exact_delta,
    exact_output,
    folded,
    update,
)
from moslora import MosloraConfig, MosloraError

# The error's norm over the exact norm, products of the layer in this dtype; what is rounded once is held to the dtype's
# epsilon.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
DROPOUT = 0.25
SIGMAS = 5.0  # the share dropped lies this near the probability, in standard deviations

Errors = dict[str, tuple[float, float]]


def check_all(regimes: Mapping[str, Regime], device: str, record: Record, budget: Budget, *, backend: str) -> None:
    """Check the kinds in these precisions, print a line each, and record them."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    every = KINDS | quantised_kinds()
    for regime_name, regime in regimes.items():
        for kind_name in regime.kinds or every:
            kind = every[kind_name]
            if kind.is_quantised and regime.has_autocast:
                continue
            if budget.is_spent:
                record.leave_out(f"correctness of {kind_name}, {regime_name}", "time budget")
                continue
            entry = check(kind, regime, device, backend=backend)
            record.add("checks", {"kind": kind_name, "precision": regime_name, **entry})
            print(line(kind_name, regime_name, entry), flush=True)
    torch.backends.cudnn.allow_tf32 = True


def check(kind: Kind, regime: Regime, device: str, *, backend: str) -> dict[str, Any]:
    """The errors of one kind in one precision, each with its tolerance; a refusal by moslora is no failure."""
    errors: Errors = {}
    torch.compiler.reset()
    try:
        for part in parts(kind, regime):
            errors |= part(kind, regime, device, backend)
    except MosloraError as error:
        return {"result": "refused", "reason": str(error), "errors": errors}
    except Exception as error:  # one failure of many, not the end of the run
        return {"result": "failed", "reason": reason(error), "errors": errors}
    is_right = all(found <= allowed for found, allowed in errors.values())
    return {"result": "passed" if is_right else "failed", "errors": errors}


def parts(kind: Kind, regime: Regime) -> Iterator[Callable[..., Errors]]:
    yield output_and_gradients
    has_delta = not (kind.is_quantised or "groups" in repr(kind.make()))
    if not (regime.is_compiled or regime.has_autocast):
        yield fold
        if has_delta:
            yield merge
    if not (kind.is_quantised or kind.options.get("use_dora") or isinstance(kind.make(), nn.Embedding)):
        yield dropout


def adapted(kind: Kind, regime: Regime, device: str, **options: Any) -> Any:
    """A model of the one layer with an adapter that is no start: every factor is drawn."""
    torch.manual_seed(0)
    base = nn.Sequential(kind.make())
    base = base.to(device) if kind.is_quantised else base.to(device, regime.dtype)
    config = MosloraConfig(**{"r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["0"]} | kind.options | options)
    model: Any = get_peft_model(base, config)
    with torch.no_grad():
        for name, tensor in adapter_tensors(model.base_model.model[0]).items():
            drawn = torch.randn_like(tensor)
            if name == "magnitude":
                tensor.mul_(1 + 0.1 * drawn)
            else:
                tensor.copy_(drawn * tensor[0].numel() ** -0.5)
    return model


def draw_input(kind: Kind, regime: Regime, device: str) -> torch.Tensor:
    if isinstance(kind.make(), nn.Embedding):
        return torch.randint(50, kind.shape, device=device)
    return torch.randn(kind.shape, device=device, dtype=regime.dtype, requires_grad=True)


def run(model: Any, x: torch.Tensor, regime: Regime, backend: str) -> torch.Tensor:
    forward: Any = torch.compile(model, backend=backend) if regime.is_compiled else model
    with torch.autocast(x.device.type, torch.bfloat16) if regime.has_autocast else nullcontext():
        return forward(x)


def output_and_gradients(kind: Kind, regime: Regime, device: str, backend: str) -> Errors:
    model = adapted(kind, regime, device)
    layer = model.base_model.model[0]
    x = draw_input(kind, regime, device)
    y = run(model, x, regime, backend)
    given = torch.randn_like(y)
    y.backward(given)
    tensors = adapter_tensors(layer)
    wanted, exact_x = {name: exact(tensor) for name, tensor in tensors.items()}, exact_input(x)
    expected = exact_output_of(layer, wanted, exact_x, x) if kind.is_quantised else exact_output(layer, wanted, exact_x)
    expected.backward(exact(given))
    found = {"output": (y, expected)}
    found |= {f"gradient of {name}": (tensor.grad, wanted[name].grad) for name, tensor in tensors.items()}
    if x.requires_grad:
        found["gradient of x"] = (x.grad, exact_x.grad)
    allowed = TOLERANCES[torch.bfloat16 if regime.has_autocast or kind.is_quantised else regime.dtype]
    return {name: (distance(*pair), allowed) for name, pair in found.items()}


def exact_input(x: torch.Tensor) -> torch.Tensor:
    return exact(x) if x.is_floating_point() else x.cpu()


def exact_output_of(layer: Any, tensors: Tensors, exact_x: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The quantised base's own output, whatever it rounds, and the update in float64."""
    base = layer.get_base_layer()
    own = exact(base(x.detach()).detach())
    through_base = exact_x @ base_weight(layer).T  # its gradient; the value is the base's own
    return own + through_base - through_base.detach() + layer.scaling["default"] * update(base, tensors, exact_x)


def fold(kind: Kind, regime: Regime, device: str, backend: str) -> Errors:
    model = adapted(kind, regime, device)
    _, tensors = moslora.fold(model)
    a = next(tensor for name, tensor in tensors.items() if "lora_A" in name or "lora_embedding_A" in name)
    wanted = {name: exact(tensor).detach() for name, tensor in adapter_tensors(model.base_model.model[0]).items()}
    return {"folded A": (distance(a, folded(wanted["A"], wanted["M"])), rounding(a.dtype))}


def merge(kind: Kind, regime: Regime, device: str, backend: str) -> Errors:
    model = adapted(kind, regime, device).eval()
    layer = model.base_model.model[0]
    base, x = layer.get_base_layer(), draw_input(kind, regime, device)
    wanted = {name: exact(tensor).detach() for name, tensor in adapter_tensors(layer).items()}
    original, expected = base_weight(layer), exact_output(layer, wanted, exact_input(x).detach())
    errors: Errors = {}
    delta = None if "magnitude" in wanted else exact_delta(layer, wanted)
    model.merge_adapter(safe_merge=True)
    if delta is not None:
        errors["merged weight"] = (distance(base_weight(layer), original + delta), rounding(base.weight.dtype))
    with torch.no_grad():
        errors["merged output"] = (distance(model(x), expected), TOLERANCES[regime.dtype])
    model.unmerge_adapter()
    errors["unmerged weight"] = (distance(base_weight(layer), original), 4 * rounding(base.weight.dtype))
    return errors


def dropout(kind: Kind, regime: Regime, device: str, backend: str) -> Errors:
    """Forward and backward drop the same elements, the right share of them, and others the next time."""
    model = adapted(kind, regime, device, lora_dropout=DROPOUT).train()
    layer = model.base_model.model[0]
    nn.init.zeros_(layer.get_base_layer().weight)
    nn.init.zeros_(layer.get_base_layer().bias)
    x = draw_input(kind, regime, device)
    y = run(model, x, regime, backend)
    y.backward(torch.randn_like(y))
    assert x.grad is not None
    kept = (x.grad != 0).cpu()  # the base gives no gradient, so what is zero was dropped
    wanted = {name: exact(tensor).detach() for name, tensor in adapter_tensors(layer).items()}
    scale = layer.scaling["default"] / (1 - DROPOUT)
    expected = scale * update(layer.get_base_layer(), wanted, exact(x).detach() * kept)
    sigmas = abs(kept.double().mean().item() - (1 - DROPOUT)) / (DROPOUT * (1 - DROPOUT) / kept.numel()) ** 0.5
    same = float(torch.equal(run(model, x, regime, backend), y))
    allowed = TOLERANCES[torch.bfloat16 if regime.has_autocast else regime.dtype]
    return {
        "output under dropout": (distance(y, expected), allowed),
        "share dropped, in standard deviations": (sigmas, SIGMAS),
        "the next draw is the same": (same, 0.0),
    }


def rounding(dtype: torch.dtype) -> float:
    """What one rounding, and the float32 sum before it, may move."""
    return max(torch.finfo(dtype).eps, 1e-6)


def distance(found: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    """The norm of the difference over the expected norm; not finite counts as infinitely far."""
    if found is None or expected is None:
        return float("inf")
    ratio = ((found.detach().cpu().double() - expected.detach()).norm() / expected.detach().norm()).item()
    return ratio if ratio == ratio else float("inf")


def line(kind: str, precision: str, entry: dict[str, Any]) -> str:
    mark = {"passed": "pass", "failed": "FAIL", "refused": "    "}[entry["result"]]
    errors = entry["errors"]
    if entry.get("reason"):
        shown = f"{entry['result']}: {entry['reason']}"
    elif entry["result"] == "failed":
        beyond = {name: pair for name, pair in errors.items() if not pair[0] <= pair[1]}
        shown = ", ".join(f"{name} {found:.2g} > {allowed:.2g}" for name, (found, allowed) in beyond.items())
    else:
        name, (found, allowed) = max(errors.items(), key=lambda item: item[1][0] / (item[1][1] or 1))
        shown = f"{len(errors)} figures, nearest to its limit: {name} {found:.2g} of {allowed:.2g}"
    return f"{mark}  {kind:22}{precision:20}{shown}"


def failures(record: Record) -> int:
    return sum(entry["result"] == "failed" for entry in record.found["checks"])
