"""Gemma 3: a picture becomes a square, and has a fixed number of tokens, which see one another."""

from collections.abc import Mapping
from typing import Any

from transformers import Gemma3Processor, PreTrainedConfig

from moslora.runs.image_processors import pixel_size
from moslora.runs.picture_readers.llava import differing_pixels
from moslora.runs.picture_readers.reader import PictureReader


class Gemma3Reader(PictureReader):
    """The features of a picture are pooled to a number that its size does not change."""

    processor_class = Gemma3Processor
    towers = ("siglip_vision_model",)
    own_shape = "stretches pictures to a square"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """The picture's places between its start and end, and blank lines around."""
        return processor.full_image_sequence

    def placeholder(self, processor: Any) -> tuple[str, int]:
        """The processor calls the start of a picture its image token; the tokenizer knows the other one."""
        return processor.tokenizer.image_token, processor.tokenizer.image_token_id

    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """Nothing: its files say all."""

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """How many tokens a picture has, and which."""
        tokenizer = processor.tokenizer
        return {
            "image_seq_length": (processor.image_seq_length, config.mm_tokens_per_image),
            "image_token_id": (tokenizer.image_token_id, config.image_token_id),
            "boi_token_id": (tokenizer.boi_token_id, config.boi_token_index),
            "eoi_token_id": (tokenizer.eoi_token_id, config.eoi_token_index),
        }

    def wrong_pixels(self, processor: Any, config: Any) -> list[str]:
        """Pictures of another size than the tower has positions for, or cut where the processor would not cut them."""
        images = processor.image_processor
        asked = ["do_pan_and_scan is set, which Gemma3Processor passes over unless each call asks for it: remove it"]
        return differing_pixels(pixel_size(images), config.vision_config) + asked * bool(images.do_pan_and_scan)

    def describe(self, processor: Any) -> dict[str, Any]:
        """With the number of a picture's tokens."""
        return super().describe(processor) | {
            "image_seq_length": processor.image_seq_length,
            "image_token": processor.tokenizer.image_token,
            "image_token_id": processor.tokenizer.image_token_id,
        }
