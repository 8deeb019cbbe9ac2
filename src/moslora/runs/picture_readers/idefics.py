"""Idefics3 and SmolVLM: a picture is cut into tiles of the tower's size, each named by its row and column.

SmolVLM's own processor reads videos too, and needs packages for that; the text of its pictures is Idefics3's.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import Idefics3Processor, PreTrainedConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from moslora.runs.image_processors import plain_size
from moslora.runs.picture_readers.reader import PictureReader


class Idefics3Reader(PictureReader):
    """A picture is enlarged to whole tiles, and comes once more as one tile; one that fits into a tile is not cut."""

    processor_class = Idefics3Processor
    towers = ("idefics3_vision",)
    own_shape = "cuts pictures into tiles"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """The tiles between the tokens that name them, and the whole picture."""
        rows, columns = tiles_of(processor.image_processor, width=width, height=height)
        return processor.replace_image_token({"rows": [[rows]], "cols": [[columns]]}, 0)

    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """Nothing: its files say all."""

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """How many tokens a tile has, and which; a black picture that is not normalised would pass for no picture."""
        tower, images = config.vision_config, processor.image_processor
        tokens = (tower.image_size // tower.patch_size) ** 2 // config.scale_factor**2
        return {
            "image_seq_len": (processor.image_seq_len, tokens),
            "image_token_id": (processor.image_token_id, config.image_token_id),
            "max_image_size": (plain_size(images.max_image_size).get("longest_edge"), tower.image_size),
            "do_normalize": (images.do_normalize, True),
        }

    def describe(self, processor: Any) -> dict[str, Any]:
        """With the size of a tile and the number of its tokens."""
        images = processor.image_processor
        return super().describe(processor) | {
            "max_image_size": plain_size(images.max_image_size),
            "image_seq_len": processor.image_seq_len,
            "image_token": processor.image_token,
            "image_token_id": processor.image_token_id,
        }


class SmolVlmReader(Idefics3Reader):
    """As Idefics3."""

    towers = ("smolvlm_vision",)


def tiles_of(images: Any, *, width: int, height: int) -> tuple[int, int]:
    """The rows and columns of tiles that an image processor cuts a picture of this size into; 0 and 0 for no cut.

    Its own `get_number_of_image_patches` rounds the shorter side before the picture is enlarged, and so is wrong where
    the longest edge is not a whole number of tiles.
    """
    if not images.do_image_splitting:
        return 0, 0
    size, side = plain_size(images.size), plain_size(images.max_image_size)["longest_edge"]
    if images.do_resize and "longest_edge" in size:
        shape = np.broadcast_to(np.uint8(0), (3, height, width))  # of no memory
        height, width = get_resize_output_image_size(shape, resolution_max_side=size["longest_edge"])
    elif images.do_resize:
        height, width = size["height"], size["width"]
    ratio = width / height
    if width >= height:
        columns = math.ceil(width / side)
        rows = math.ceil(int(columns * side / ratio) / side)
    else:
        rows = math.ceil(height / side)
        columns = math.ceil(int(rows * side * ratio) / side)
    return (rows, columns) if max(rows, columns) > 1 else (0, 0)
