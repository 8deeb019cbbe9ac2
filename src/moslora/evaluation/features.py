"""Pictures and texts as vectors of unit length, by a model that is named with everything that decides its numbers.

Two numbers are comparable only if their `name` is the same: similarities differ by tenths between backbones, and with
the preprocessing. A name is made of what was loaded, never of what such numbers are called in papers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps

from moslora.errors import CheckpointError, ConfigError

EMBEDDED = "efficientnet-lite0"
BATCH_SIZE = 16

PictureEncoder = Callable[[list[Image.Image]], torch.Tensor]  # to (N, D)
TextEncoder = Callable[[list[str]], torch.Tensor]


@dataclass(frozen=True)
class Features:
    """A model that gives pictures, and perhaps texts, vectors of unit length.

    `model` and `preprocessing` say in words what it is and what becomes of a picture; `text_form` what becomes of a
    text, None where the model has none.
    """

    model: str
    preprocessing: str
    encode_pictures: PictureEncoder
    text_form: str | None = None
    encode_texts: TextEncoder | None = None

    @property
    def name(self) -> str:
        """What a record must say of a number made with it."""
        texts = f"; texts: {self.text_form}" if self.text_form else ""
        return f"{self.model}; pictures: {self.preprocessing}{texts}"

    def pictures(self, images: Sequence[Image.Image]) -> np.ndarray:
        """The vectors of pictures (N × D), in float64 and of length 1; a camera's rotation is applied.

        Raises CheckpointError for a vector that is no direction: with values that are no numbers, or all of them 0.
        """
        upright = [ImageOps.exif_transpose(image).convert("RGB") for image in images]
        return _units(upright, self.encode_pictures, model=self.model)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts (N × D), as those of pictures. Raises ConfigError for a model without texts."""
        if self.encode_texts is None:
            raise ConfigError(
                f"{self.model} reads pictures only, so it cannot compare pictures with texts; name a CLIP or"
                " SigLIP model"
            )
        return _units(list(texts), self.encode_texts, model=self.model)


def open_features(source: str = EMBEDDED, *, device: str | torch.device | None = None) -> Features:
    """The model of a hub id or a folder, or the one that comes as a package, `efficientnet-lite0`, in float32.

    From transformers: CLIP and SigLIP models (pictures and texts), DINOv2 and ViT (pictures, by the class token).
    Without `device` it is computed on the accelerator if there is one. Raises ConfigError for a model that cannot be
    found or is of another kind, CheckpointError for one that lacks weights, and MissingDependencyError for a package
    that is missing.
    """
    place = torch.device(device) if device is not None else torch.accelerator.current_accelerator()
    place = place or torch.device("cpu")
    if source == EMBEDDED:
        from moslora.evaluation.efficientnet import load_efficientnet

        return load_efficientnet(place)
    from moslora.evaluation.pretrained_features import load_pretrained

    return load_pretrained(source, place)


def _units(inputs: list, encode: Callable[[list], torch.Tensor], *, model: str) -> np.ndarray:
    if not inputs:
        raise ValueError("nothing to compute features of; give at least one picture or text")
    batches = [inputs[start : start + BATCH_SIZE] for start in range(0, len(inputs), BATCH_SIZE)]
    with torch.inference_mode():
        vectors_ND = torch.cat([encode(batch).double().cpu() for batch in batches]).numpy()
    lengths_N = np.linalg.norm(vectors_ND, axis=1)
    wrong = ~(np.isfinite(lengths_N) & (lengths_N > 0))
    if wrong.any():
        raise CheckpointError(
            f"{model} gives number {int(wrong.argmax())} of {len(inputs)} a vector of length {lengths_N[wrong][0]},"
            " which has no direction; get a fresh copy of its weights"
        )
    return vectors_ND / lengths_N[:, None]
