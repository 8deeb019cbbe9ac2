"""What a folder that leaves its run says of it: the prompt that its model was trained with, and how far it was trained.

PEFT, transformers and others do not look at the file.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from moslora import __version__
from moslora.adapter.card import add_unfinished_section
from moslora.data.prompts import STYLES
from moslora.errors import CheckpointError
from moslora.files import write_atomically
from moslora.runs.model_names import EMOJI_MODEL, VISION_DEMOS
from moslora.runs.recipe import LANGUAGE, RECIPES
from moslora.runs.subject_settings import CAPTION

ORIGIN_NAME = "moslora.json"
# Types of models that only one kind runs.
SEEING = ("llava", "llava_next", "idefics3", "smolvlm", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
OF_TYPE: dict[str, str] = dict.fromkeys(SEEING, "vision_language")
OF_NAME: dict[str, str] = {**dict.fromkeys(VISION_DEMOS, "vision_language"), EMOJI_MODEL: "subject"}
PIPELINE_INDEX = "model_index.json"  # of diffusers, in the folder of a text-to-image model


class Reached(NamedTuple):
    """The optimiser step of the weights of a run that stopped early, and how many steps it was to do."""

    step: int
    steps: int


def write_origin(
    folder: str | Path,
    *,
    prompt: str | None,
    kind: str,
    base: str | None = None,
    system: str | None = None,
    reached: Reached | None = None,
) -> None:
    """Note in a folder how its model is asked, where that is known, of what kind it is, and its base if PEFT cannot.

    `system` is the message that instructions were trained with; that of chats is in the chat template. `reached`, of a
    run that stopped early, stands on the model card too.
    """
    if reached is not None:
        add_unfinished_section(folder, step=reached.step, steps=reached.steps)
    if prompt is not None:
        others = {"kind": None if kind == LANGUAGE else kind, "base": base, "system": system, "reached": reached}
        noted = {"prompt": prompt, **{name: value for name, value in others.items() if value}}
        text = json.dumps({**noted, "moslora_version": __version__}, indent=2)
        write_atomically(Path(folder) / ORIGIN_NAME, text + "\n")


def kind_noted(folder: str | Path, *, model: str) -> str:
    """The kind that a folder notes; if it notes none, that of its base `model`: a demo's name, or a local folder.

    Raises CheckpointError.
    """
    noted = _noted(Path(folder))
    of_model = OF_NAME.get(model) or OF_TYPE.get(_model_type(Path(model)), LANGUAGE)
    if (Path(model) / PIPELINE_INDEX).is_file():
        of_model = "subject"
    kind = noted.get("kind", LANGUAGE) if noted else of_model
    if kind not in RECIPES:
        raise CheckpointError(
            f"{Path(folder) / ORIGIN_NAME} names the kind {kind!r}, which is none of {', '.join(RECIPES)}: correct it"
        )
    return kind


def prompt_of(folder: str | Path) -> str | None:
    """The prompt style that a folder notes; None if it notes nothing. Raises CheckpointError for a damaged note."""
    prompt = _noted(Path(folder)).get("prompt")
    if prompt is not None and prompt not in (*STYLES, CAPTION):
        path = Path(folder) / ORIGIN_NAME
        raise CheckpointError(f"{path} names the prompt {prompt!r}, which is none of {', '.join(STYLES)}: correct it")
    return prompt


def base_noted(folder: str | Path) -> str | None:
    """The base model that a folder notes, where PEFT's own file has no place for it. Raises CheckpointError."""
    return _noted(Path(folder)).get("base")


def system_of(folder: str | Path) -> str | None:
    """The system message that a folder notes for instructions. Raises CheckpointError for a damaged note."""
    return _noted(Path(folder)).get("system")


def reached_in(folder: str | Path) -> Reached | None:
    """How far the run was that a folder's weights are from; None of a finished one. Raises CheckpointError."""
    noted = _noted(Path(folder)).get("reached")
    try:
        return Reached(*map(int, noted)) if noted is not None else None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{Path(folder) / ORIGIN_NAME}: reached is {noted!r}: give [step, steps]") from error


def _model_type(folder: Path) -> str:
    """What transformers calls a model's layout; nothing where its configuration cannot be read."""
    try:
        return str(json.loads((folder / "config.json").read_bytes()).get("model_type"))
    except (OSError, ValueError, AttributeError):
        return ""


def _noted(folder: Path) -> dict[str, Any]:
    path = folder / ORIGIN_NAME
    if not path.is_file():
        return {}
    try:
        noted = json.loads(path.read_bytes())
        noted["prompt"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read {path} ({error!r}): remove it, and say --prompt-style") from error
    return noted
