"""What a folder that leaves its run says of it: the prompt that its model was trained with.

PEFT, transformers and others do not look at the file.
"""

import json
from pathlib import Path

from moslora import __version__
from moslora.data.prompts import STYLES
from moslora.errors import CheckpointError
from moslora.files import write_atomically

ORIGIN_NAME = "moslora.json"


def write_origin(folder: str | Path, *, prompt: str | None) -> None:
    """Note in a folder how its model is asked, where that is known."""
    if prompt is not None:
        text = json.dumps({"prompt": prompt, "moslora_version": __version__}, indent=2)
        write_atomically(Path(folder) / ORIGIN_NAME, text + "\n")


def prompt_of(folder: str | Path) -> str | None:
    """The prompt style that a folder notes; None if it notes nothing. Raises CheckpointError for a damaged note."""
    path = Path(folder) / ORIGIN_NAME
    if not path.is_file():
        return None
    try:
        prompt = json.loads(path.read_bytes())["prompt"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path} ({error!r}): remove it, and say --prompt-style") from error
    if prompt not in STYLES:
        raise CheckpointError(f"{path} names the prompt {prompt!r}, which is none of {', '.join(STYLES)}: correct it")
    return prompt
