"""The model card of a saved adapter: how to load it."""

from pathlib import Path

HEADING = "## How to load this adapter"
SECTION = f"""
{HEADING}

This is a MoSLoRA adapter (`delta = scale · B · M · A`). Import `moslora` first; PEFT then knows the type:

```python
import moslora
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("PATH_OR_NAME_OF_THIS_ADAPTER")
```

For programs without `moslora`, fold it into a plain LoRA adapter of the same rank: `moslora fold ADAPTER`.
"""


def add_loading_section(folder: str) -> None:
    """Append the loading lines to the card in `folder` (PEFT writes the rest), once."""
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if HEADING not in text:
        path.write_text(text.rstrip("\n") + ("\n" if text else "") + SECTION, encoding="utf-8")
