"""Batches of conversations with pictures, which are opened here and not before."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import nn

from moslora.adapter.twin import accepts, base_of
from moslora.data.images import Picture, encoded, open_image
from moslora.data.probing import sees_left_padding
from moslora.data.tokens import IGNORED, collate
from moslora.training.trainer import Collate

TEXT = ("input_ids", "labels")
GREY = Image.new("RGB", (32, 32), (128, 128, 128))
PLACED = "mm_token_type_ids"
TYPES = ("token_type_ids", PLACED)
Placed = tuple[Picture, str]  # a picture, and where messages say it stands
See = Callable[[Sequence[Placed]], dict[str, Any]]  # pictures to what the model reads of them


def collator(
    model: nn.Module,
    processor: Any,
    *,
    pad_token_id: int,
    image_token_id: int,
    grey_ids: list[int],
    learns_from_text: bool = True,
    see: See | None = None,
) -> Collate:
    """What makes batches for a model: rows of tokens, and the pixels of their pictures in the order of the rows.

    In training, a batch of text alone gets a row without labels that holds a grey picture (the tokens `grey_ids`)
    where it must: under several processes, so that the vision encoder is part of every process's graph, and unless the
    model `learns_from_text`, since without a picture nothing of its loss could be trained. `see` gives the model
    something else of pictures than their pixels.
    """
    places = ("logits_to_keep", "position_ids")
    at_end = all(accepts(model, name) for name in places) and not (places_itself(model) or sees_left_padding(model))
    needs_picture = int(os.environ.get("WORLD_SIZE", "1")) > 1 or not learns_from_text
    nothing_said = {"input_ids": grey_ids, "labels": [IGNORED] * len(grey_ids)}

    def opened(shown: Sequence[Placed]) -> dict[str, Any]:
        return pixels([open_image(image, place=place) for image, place in shown], processor)

    def batch_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
        shown = pictures_of(rows)
        texts = [{name: row[name] for name in TEXT} for row in rows]
        if needs_picture and not shown and torch.is_grad_enabled():
            shown, texts = [(encoded(GREY), "the grey picture")], [*texts, nothing_said]
        batch = collate(texts, pad_token_id=pad_token_id, at_end=at_end)
        return batch | token_types(batch["input_ids"], model, image_token_id=image_token_id) | (see or opened)(shown)

    return batch_of


def pictures_of(rows: Sequence[Mapping[str, Any]]) -> list[Placed]:
    """The pictures of rows in their order."""
    return [(image, row["place"]) for row in rows for image in row["images"]]


def pixels(pictures: list[Image.Image], processor: Any) -> dict[str, Any]:
    """What the model reads of pictures: `pixel_values`, and their sizes or masks where it cuts them into tiles."""
    if not pictures:
        return {}
    found = processor.image_processor(pictures, return_tensors="pt")
    return {name: value for name, value in found.items() if name not in processor.unused_input_names}


def token_types(ids: torch.Tensor, model: nn.Module, *, image_token_id: int) -> dict[str, torch.Tensor]:
    """Which tokens of a batch are pictures', for a model that asks: to let those of a picture see one another, or to
    give them places in two dimensions."""
    return {name: (ids == image_token_id).long() for name in TYPES if accepts(model, name)}


def places_itself(model: nn.Module) -> bool:
    """Whether the model finds a place in two dimensions for each token of a picture, unless it is given positions."""
    return accepts(model, PLACED)


def inputs_beside(
    pictures: list[Image.Image], ids: torch.Tensor, *, model: nn.Module, processor: Any, image_token_id: int
) -> dict[str, Any]:
    """What the model reads beside a batch of token ids: which of them are pictures', and the pictures themselves."""
    return token_types(ids, model, image_token_id=image_token_id) | pixels(pictures, processor)


def weigh_tokens_alike(model: nn.Module) -> None:
    """Let a step's loss be the mean over its tokens, however many batches it is computed in.

    transformers says of Qwen's models that they take no count of a step's tokens. Their loss does, as of all models
    here.
    """
    base_of(model).accepts_loss_kwargs = True
