"""The model cards of saved and of folded adapters: how to load them, and what a server may leave out."""

import json
from pathlib import Path
from typing import Any

from peft import LoraConfig

from moslora.adapter.twin import base_of

HEADING = "## How to load this adapter"
SECTION = f"""
{HEADING}

This is a MoSLoRA adapter (`delta = scale · B · M · A`). Import `moslora` first; PEFT then knows the type:

```python
import moslora
from peft import LOADER

model = LOADER.from_pretrained("PATH_OR_NAME_OF_THIS_ADAPTER")
```

For programs without `moslora`, fold it into a plain LoRA adapter of the same rank: `moslora fold ADAPTER`.
"""
SERVING = (
    "a server of LoRA adapters may apply the language model's part alone and leave out the vision tower's and the"
    " projector's (vLLM does without --enable-tower-connector-lora): where that matters, merge the adapter into a full"
    " model, `moslora merge ADAPTER`"
)


def add_loading_section(folder: str, *, task_type: Any = "CAUSAL_LM") -> None:
    """Append the loading lines to the card in `folder` (PEFT writes the rest), once."""
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if HEADING not in text:
        loader = "AutoPeftModel" if task_type is None else "AutoPeftModelForCausalLM"
        section = SECTION.replace("LOADER", loader)
        path.write_text(text.rstrip("\n") + ("\n" if text else "") + section, encoding="utf-8")


def add_unfinished_section(folder: str | Path, *, step: int, steps: int) -> None:
    """Append to the card in `folder`, or to a new one, that training stopped early."""
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" if path.exists() else ""
    said = f"These are the weights of step {step} of {steps}: the run had not finished when they were taken."
    path.write_text(f"{text}## Unfinished training\n\n{said}\n", encoding="utf-8")


def folded_card(config: LoraConfig, model: Any) -> str:
    """The card of an adapter that was folded into plain LoRA; `model` is the one with the mixers."""
    base = json.dumps(config.base_model_name_or_path or "BASE_MODEL")
    loader = type(base_of(model)).__name__ if config.task_type is None else "AutoModelForCausalLM"
    note = serving_note(model)
    return (
        "# Folded MoSLoRA adapter\n\nPlain LoRA (`A' = M·A`, same rank); it needs no code but PEFT:\n\n```python\n"
        f"from peft import PeftModel\nfrom transformers import {loader}\n\n"
        f"base = {loader}.from_pretrained({base})\n"
        'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")\n```\n'
    ) + (f"\nNote: {note}.\n" if note else "")


def serving_note(model: Any) -> str | None:
    """What a server may leave out of an adapter for a model that reads pictures; None for any other model."""
    return SERVING if getattr(getattr(base_of(model), "config", None), "vision_config", None) is not None else None
