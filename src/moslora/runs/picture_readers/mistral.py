"""Mistral 3: a picture keeps its shape, and stands as rows of tokens with a break after each.

Its own processor needs torchvision. The one here reads pictures without it, and is saved under the maker's name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedConfig, ProcessorMixin
from transformers.models.pixtral.image_processing_pil_pixtral import get_resize_output_image_size

from moslora.errors import DataError
from moslora.runs.image_processors import plain_size
from moslora.runs.picture_readers.reader import PictureReader


class PixtralPictures(ProcessorMixin):
    """What the maker's processor does with pictures and text."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
        **_others: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token, self.image_token_id = image_token, tokenizer.convert_tokens_to_ids(image_token)
        self.image_break_token, self.image_end_token = image_break_token, image_end_token
        self.saved_patch_size = image_processor.patch_size

    @property
    def side(self) -> int:
        """The side in pixels of what a token stands for."""
        return self.patch_size * self.spatial_merge_size

    def text_of(self, height: int, width: int) -> str:
        """What stands for a picture of this size in pixels, which is one of whole tokens."""
        row = self.image_token * (width // self.side)
        return self.image_break_token.join([row] * (height // self.side)) + self.image_end_token

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **_others: Any) -> str:
        """What stands for one of the pictures that were processed."""
        return self.text_of(*map(int, image_inputs["image_sizes"][image_idx]))

    def to_dict(self) -> dict[str, Any]:
        """The fields of the maker's own, whose calls bring the patches of its pictures to the size of tokens."""
        fields = super().to_dict()
        images = fields["image_processor"] | {"patch_size": self.saved_patch_size}
        return fields | {"processor_class": "PixtralProcessor", "image_processor": images}


class Mistral3Reader(PictureReader):
    """A picture is made smaller where its longer edge is too long, and stretched to whole tokens."""

    processor_class = PixtralPictures
    towers = ("pixtral",)
    own_shape = "keeps the shape of pictures"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """The rows of tokens. Raises DataError for a picture of which nothing is left where it is made smaller."""
        size = plain_size(processor.image_processor.size)
        longest = size.get("longest_edge")
        most = (longest, longest) if longest else (size["height"], size["width"])
        shape = np.broadcast_to(np.uint8(0), (height, width, 3))  # of no memory
        side = (processor.side, processor.side)
        pixels = get_resize_output_image_size(shape, size=most, patch_size=side)
        if not all(pixels):
            raise DataError(f"a picture of {width} x {height} pixels is too long and thin to be made smaller; crop it")
        return processor.text_of(*pixels)

    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """Pictures are cut for tokens, of several patches each."""
        processor.saved_patch_size = processor.image_processor.patch_size
        processor.image_processor.patch_size = {"height": processor.side, "width": processor.side}

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """How many pixels a token has, and which it is."""
        images = processor.image_processor
        return {
            "patch_size": (processor.patch_size, config.vision_config.patch_size),
            "spatial_merge_size": (processor.spatial_merge_size, config.spatial_merge_size),
            "image_token_id": (processor.image_token_id, config.image_token_id),
            "do_resize": (images.do_resize, True),
            "do_center_crop": (bool(getattr(images, "do_center_crop", False)), False),
        }

    def wrong_pixels(self, processor: Any, config: Any) -> list[str]:
        """Pictures that may be larger than the tower has positions for."""
        longest, most = max(plain_size(processor.image_processor.size).values()), config.vision_config.image_size
        return [f"pictures become up to {longest} pixels long and the model takes {most}"] * (longest > most)

    def describe(self, processor: Any) -> dict[str, Any]:
        """With what a token stands for."""
        return super().describe(processor) | {
            "processor": "PixtralProcessor",
            "padding": "own shape",
            "patch_size": processor.patch_size,
            "spatial_merge_size": processor.spatial_merge_size,
            "image_token": processor.image_token,
            "image_token_id": processor.image_token_id,
        }
