"""Whether an assembled model, loaded from its folder, is its parts: its tensors, its text, and its pictures."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoModelForImageTextToText, LlavaConfig

from moslora.errors import DriftError
from moslora.runs.processors import load_processor

PROBE = "A picture shows what words describe."
ROUNDING = {torch.bfloat16: 3e-2, torch.float32: 1e-4}  # of logits, as a share of the largest


def fingerprints(model: nn.Module) -> dict[str, str]:
    """A hash of each tensor's shape, dtype and bytes, by name."""
    return {name: _fingerprint(tensor) for name, tensor in model.state_dict().items()}


def prove(
    folder: Path, right: Mapping[str, str], *, probe: tuple[torch.Tensor, torch.Tensor], config: LlavaConfig
) -> None:
    """Load the model in `folder` and compare it with what it was made of.

    `right` holds the parts' `fingerprints`; `probe` the tokens of a text and the language model's logits for them.
    Raises DriftError unless every tensor is the same, a text gives the language model's logits (to rounding), and a
    picture's features stand exactly where its tokens were.
    """
    options: dict[str, Any] = {"dtype": config.dtype, "use_safetensors": True}
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, **options).eval()
    found = fingerprints(model)
    if wrong := sorted(name for name in {**right, **found} if right.get(name) != found.get(name)):
        raise DriftError(f"the assembled model has {len(wrong)} other tensors than its parts: {', '.join(wrong[:3])}")
    _check_text(model, *probe)
    _check_picture(model, load_processor(str(folder), model.config))


def _check_text(model: Any, ids: torch.Tensor, expected: torch.Tensor) -> None:
    """Text must be what the language model alone makes of it: not all scale or cap their logits in the same place."""
    with torch.no_grad():
        logits = model(input_ids=ids).logits.float()[..., : expected.shape[-1]]
    kind = model.config.text_config.model_type
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    if not difference <= ROUNDING[model.dtype]:  # NaN too
        raise DriftError(
            f"the assembled model's logits for text differ from the language model's by {difference:.2g} of the"
            f" largest (allowed: {ROUNDING[model.dtype]:g}): '{kind}' does more than LLaVA models"
            " repeat; give a language model such as Llama, Mistral or Qwen"
        )


def picture_probe(processor: Any) -> Any:
    """The inputs of a model for one drawn picture and a text."""
    rows, columns = np.indices((40, 60))
    pixels = np.stack([rows * 6, columns * 4, (rows + columns) % 2 * 255], axis=-1).astype(np.uint8)
    text = f"{processor.image_token}\n{PROBE}"
    return processor(text=text, images=Image.fromarray(pixels), return_tensors="pt")


def _check_picture(model: Any, processor: Any) -> None:
    given = picture_probe(processor)
    seen: dict[str, torch.Tensor] = {}

    def keep(_module: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
        seen["embeddings"] = named["inputs_embeds"][0]

    hook = model.model.language_model.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        output = model(**given)
        features = torch.cat(model.get_image_features(given["pixel_values"]).pooler_output)
        words = model.get_input_embeddings()(given["input_ids"])[0]
    hook.remove()
    is_image = given["input_ids"][0] == model.config.image_token_index
    is_there = torch.equal(seen["embeddings"][is_image], features) and torch.equal(
        seen["embeddings"][~is_image], words[~is_image]
    )
    if not output.logits.isfinite().all():
        raise DriftError("a picture gives logits that are not finite: the vision tower or the projector is damaged")
    if not is_there:
        raise DriftError("a picture's features are not where its tokens were: the model's class computes otherwise")


def _fingerprint(tensor: torch.Tensor) -> str:
    data: Any = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.blake2b(data).hexdigest()}"
