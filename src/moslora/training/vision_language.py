"""Batches of conversations with pictures, which are opened here and not before."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from moslora.adapter.twin import accepts
from moslora.data.images import Picture, encoded, open_image
from moslora.data.probing import sees_left_padding
from moslora.data.tokens import IGNORED, collate
from moslora.training.trainer import Collate

TEXT = ("input_ids", "labels")
GREY = Image.new("RGB", (32, 32), (128, 128, 128))
Placed = tuple[Picture, str]  # a picture, and where messages say it stands
See = Callable[[Sequence[Placed]], dict[str, Any]]  # pictures to what the model reads of them


def collator(
    model: nn.Module,
    processor: Any,
    *,
    pad_token_id: int,
    grey_tokens: int,
    learns_from_text: bool = True,
    see: See | None = None,
) -> Collate:
    """What makes batches for a model: rows of tokens, and the pixels of their pictures in the order of the rows.

    In training, a batch of text alone gets a row without labels that holds a grey picture (of `grey_tokens` tokens)
    where it must: under several processes, so that the vision encoder is part of every process's graph, and unless the
    model `learns_from_text`, since without a picture nothing of its loss could be trained. `see` gives the model
    something else of pictures than their pixels.
    """
    at_end = all(accepts(model, name) for name in ("logits_to_keep", "position_ids")) and not sees_left_padding(model)
    needs_picture = int(os.environ.get("WORLD_SIZE", "1")) > 1 or not learns_from_text
    nothing_said = {"input_ids": [processor.image_token_id] * grey_tokens, "labels": [IGNORED] * grey_tokens}

    def opened(shown: Sequence[Placed]) -> dict[str, Any]:
        return pixels([open_image(image, place=place) for image, place in shown], processor)

    def batch_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
        shown = pictures_of(rows)
        texts = [{name: row[name] for name in TEXT} for row in rows]
        if needs_picture and not shown and torch.is_grad_enabled():
            shown, texts = [(encoded(GREY), "the grey picture")], [*texts, nothing_said]
        return collate(texts, pad_token_id=pad_token_id, at_end=at_end) | (see or opened)(shown)

    return batch_of


def pictures_of(rows: Sequence[Mapping[str, Any]]) -> list[Placed]:
    """The pictures of rows in their order."""
    return [(image, row["place"]) for row in rows for image in row["images"]]


def pixels(pictures: list[Image.Image], processor: Any) -> dict[str, Any]:
    """What the model reads of pictures: `pixel_values`, and their sizes where it cuts them into tiles."""
    return dict(processor.image_processor(pictures, return_tensors="pt")) if pictures else {}
