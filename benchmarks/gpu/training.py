"""Training steps of an adapted Llama with random weights: median time and peak memory of each adapter.

All adapters of a setting live at once, on module trees of their own that share the frozen weights; every round runs
each of them once, in a new order. Mixed precision is autocast to bfloat16, as transformers' Trainer does it.
"""

import copy
import gc
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from benchmarks.gpu.record import Budget, Record, reason
from benchmarks.naive import TARGETS, naive_moslora
from moslora import MosloraConfig

RANK = 16
COMPILED = ", compiled"
ADAPTERS = ("lora", "dora", "naive", "moslora", f"moslora{COMPILED}", f"lora{COMPILED}", "none")
ROUNDS, LEAST_ROUNDS, WARM_UP = 9, 3, 2


@dataclass(frozen=True)
class Size:
    """A model's shape and the batch it is trained on."""

    config: dict[str, int]
    rows: int
    length: int


SIZES = {
    "LLaMA-3-8B": Size(
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 8192,
        },
        rows=16,
        length=256,
    ),
    "tiny": Size(
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
        rows=2,
        length=16,
    ),
}


@dataclass
class Candidate:
    """An adapter on its own module tree, and what was measured of it in the present setting."""

    model: Any
    optimizer: Any
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    warm_up_seconds: float = 0.0
    loss: float = float("nan")
    failure: str | None = None


def measure_all(size_name: str, device: str, record: Record, budget: Budget, *, backend: str, rounds: int) -> None:
    """Measure every adapter with and without dropout and gradient checkpointing, as far as the budget goes."""
    size = SIZES[size_name]
    torch._dynamo.config.fail_on_recompile_limit_hit = True  # it would run uncompiled and be called compiled
    base = random_llama(size, device)
    ids = torch.randint(size.config["vocab_size"], (size.rows, size.length), device=device)
    batch = {"input_ids": ids, "labels": ids}
    for dropout in (0.05, 0.0):
        candidates: dict[str, Candidate] = {}
        for name in ADAPTERS:
            if budget.is_spent:
                record.leave_out(f"{name}, dropout {dropout:g}", "time budget")
                continue
            try:
                candidates[name] = build(name, base, dropout=dropout, backend=backend)
            except Exception as error:  # one of many: the others are still worth measuring
                record.add("steps", {"dropout": dropout, "adapter": name, "result": "failed", "reason": reason(error)})
                free()
        for has_checkpoints in (False, True):
            setting = {"dropout": dropout, "gradient_checkpointing": has_checkpoints}
            label = f"dropout {dropout:g}, {'with' if has_checkpoints else 'without'} gradient checkpointing"
            torch.compiler.reset()  # else what earlier settings compiled counts against the limit of recompilations
            print(f"training steps: {label}", flush=True)
            for entry in measure(candidates, batch, has_checkpoints, budget, rounds=rounds):
                if entry["result"] == "left out":
                    record.leave_out(f"{entry['adapter']}, {label}", "time budget")
                else:
                    record.add("steps", setting | entry)
        del candidates
        free()


def random_llama(size: Size, device: str) -> Any:
    """A frozen Llama of this size with random weights in bfloat16, made on the device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**size.config, use_cache=False), dtype=torch.bfloat16)
    return model.requires_grad_(False)


def build(name: str, base: Any, *, dropout: float, backend: str) -> Candidate:
    """The named adapter on a copy of `base` that shares its weights."""
    shared = {id(tensor): tensor for tensor in (*base.parameters(), *base.buffers())}
    model = adapt(name.removesuffix(COMPILED), copy.deepcopy(base, shared), dropout=dropout).train()
    if name.endswith(COMPILED):
        for module in model.modules():
            if isinstance(module, LlamaDecoderLayer):
                module.compile(backend=backend)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return Candidate(model, torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None)


def adapt(method: str, model: Any, *, dropout: float) -> Any:
    """The model with an adapter; `none` lets gradients through the frozen model, which no adapter can undercut."""
    torch.manual_seed(0)
    if method == "none":
        model.enable_input_require_grads()
        return model
    if method == "naive":
        return naive_moslora(model, rank=RANK, dropout=dropout)
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": 2 * RANK, "lora_dropout": dropout, "target_modules": TARGETS}
    lora["task_type"] = "CAUSAL_LM"
    config = MosloraConfig(**lora) if method == "moslora" else LoraConfig(**lora, use_dora=method == "dora")
    return get_peft_model(model, config)


def measure(
    candidates: dict[str, Candidate],
    batch: dict[str, torch.Tensor],
    has_checkpoints: bool,
    budget: Budget,
    *,
    rounds: int,
) -> Iterator[dict[str, Any]]:
    """One setting: warm up each candidate, then interleaved rounds while time is left; an entry for each."""
    running: dict[str, Candidate] = {}
    for name, candidate in candidates.items():
        candidate.seconds, candidate.peak_bytes, candidate.failure = [], None, None
        switch_checkpointing(candidate.model, has_checkpoints)
        if budget.is_spent:
            yield {"adapter": name, "result": "left out"}
            continue
        started = time.perf_counter()
        if all(try_step(candidate, batch, is_counted=False) for _ in range(WARM_UP)):
            running[name] = candidate
        candidate.warm_up_seconds = time.perf_counter() - started
        if candidate.failure:
            print(f"  {name}: {candidate.failure}", flush=True)
            yield {"adapter": name, "result": "failed", "reason": candidate.failure}
    order, generator = list(running), random.Random(0)
    for number in range(rounds):
        if number >= LEAST_ROUNDS and budget.is_spent:
            break
        generator.shuffle(order)
        for name in order:
            if running[name].failure is None:
                try_step(running[name], batch, is_counted=True)
    for name, candidate in running.items():
        yield {"adapter": name, **figures(candidate)}


def figures(candidate: Candidate) -> dict[str, Any]:
    if candidate.failure or not candidate.seconds:
        return {"result": "failed", "reason": candidate.failure or "no step was measured"}
    return {
        "result": "measured",
        "median_seconds": median(candidate.seconds),
        "peak_bytes": candidate.peak_bytes,
        "seconds": candidate.seconds,
        "warm_up_seconds": candidate.warm_up_seconds,
        "loss": candidate.loss,
    }


def try_step(candidate: Candidate, batch: dict[str, torch.Tensor], *, is_counted: bool) -> bool:
    """One training step; an error, out of memory for one, is kept in the candidate, and its memory is freed."""
    try:
        step(candidate, batch, is_counted=is_counted)
    except Exception as error:  # one of many: the others are still worth measuring
        candidate.failure = reason(error)
    if candidate.failure is not None:
        candidate.model.zero_grad()
        free()
    return candidate.failure is None


def step(candidate: Candidate, batch: dict[str, torch.Tensor], *, is_counted: bool) -> None:
    device = batch["input_ids"].device
    on_gpu = device.type == "cuda"
    before = 0
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16):
        loss = candidate.model(**batch).loss
    loss.backward()
    if candidate.optimizer is not None:
        candidate.optimizer.step()
        candidate.optimizer.zero_grad()
    if on_gpu:
        torch.cuda.synchronize()
    taken = time.perf_counter() - started
    candidate.loss = loss.item()
    if is_counted:
        candidate.seconds.append(taken)
        if on_gpu:
            peak = torch.cuda.max_memory_allocated() - before + resident_bytes(candidate)
            candidate.peak_bytes = max(peak, candidate.peak_bytes or 0)


def resident_bytes(candidate: Candidate) -> int:
    """The candidate's weights and optimiser state, as if it were alone on the card."""
    tensors = [*candidate.model.parameters(), *candidate.model.buffers()]
    if candidate.optimizer is not None:
        states = candidate.optimizer.state.values()
        tensors += [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def switch_checkpointing(model: Any, is_on: bool) -> None:
    word = (
        "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    )  # transformers 5.23: renamed
    if is_on:
        getattr(model, f"{word}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{word}_checkpointing_disable")()


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
