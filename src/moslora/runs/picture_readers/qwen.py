"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a picture keeps its shape, and a token stands for each square of patches.

Their own processors read videos too, which needs torchvision. Those here read pictures without it, and are saved under
the names of the makers' own, which then read what is saved.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig, ProcessorMixin

from moslora.errors import DataError
from moslora.runs.picture_readers.reader import PictureReader

IMAGE_TOKEN = "<|image_pad|>"


class QwenProcessor(ProcessorMixin):
    """What a maker's processor does with pictures and text."""

    own_name: ClassVar[str]
    own_videos: ClassVar[str]
    return_mm_token_type_ids = True

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_others: Any
    ) -> None:
        self.image_token = getattr(tokenizer, "image_token", None) or IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.videos = {"video_processor_type": self.own_videos}
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def replace_image_token(self, image_inputs: Mapping[str, Any], image_idx: int, **_others: Any) -> str:
        """What stands for one of the pictures that were processed."""
        patches = int(image_inputs["image_grid_thw"][image_idx].prod())
        return self.image_token * (patches // self.image_processor.merge_size**2)

    def to_dict(self) -> dict[str, Any]:
        """The fields of the maker's own, with what its files said of videos."""
        return super().to_dict() | {"processor_class": self.own_name, "video_processor": self.videos}


class Qwen2VlProcessor(QwenProcessor):
    """Of Qwen2-VL."""

    own_name, own_videos = "Qwen2VLProcessor", "Qwen2VLVideoProcessor"


class Qwen25VlProcessor(QwenProcessor):
    """Of Qwen2.5-VL."""

    own_name, own_videos = "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor"


class Qwen3VlProcessor(QwenProcessor):
    """Of Qwen3-VL."""

    own_name, own_videos = "Qwen3VLProcessor", "Qwen3VLVideoProcessor"


class QwenReader(PictureReader):
    """A picture is resized to whole squares of patches, between the smallest and the largest area."""

    own_shape = "keeps the shape of pictures"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """A token for each square. Raises DataError for a picture that is longer than these models take."""
        images = processor.image_processor
        try:
            patches = images.get_number_of_image_patches(height, width)
        except ValueError as error:
            raise DataError(f"a picture of {width} x {height} pixels: {error}; crop it") from error
        return processor.image_token * (patches // images.merge_size**2)

    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """What is saved of videos."""
        processor.videos = given.get("video_processor") or processor.videos

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """The numbers that patches are made by, and the token; pictures that are not resized are no whole squares."""
        images, tower = processor.image_processor, config.vision_config
        return {
            "patch_size": (images.patch_size, tower.patch_size),
            "temporal_patch_size": (images.temporal_patch_size, tower.temporal_patch_size),
            "merge_size": (images.merge_size, tower.spatial_merge_size),
            "do_resize": (images.do_resize, True),
            "image_token_id": (processor.image_token_id, config.image_token_id),
        }

    def describe(self, processor: Any) -> dict[str, Any]:
        """With the numbers that patches are made by."""
        images = processor.image_processor
        return super().describe(processor) | {
            "processor": processor.own_name,
            "padding": "own shape",
            "patch_size": images.patch_size,
            "temporal_patch_size": images.temporal_patch_size,
            "merge_size": images.merge_size,
            "image_token": processor.image_token,
            "image_token_id": processor.image_token_id,
        }


class Qwen2VlReader(QwenReader):
    """Qwen2-VL."""

    processor_class = Qwen2VlProcessor
    towers = ("qwen2_vl_vision",)


class Qwen25VlReader(QwenReader):
    """Qwen2.5-VL."""

    processor_class = Qwen25VlProcessor
    towers = ("qwen2_5_vl_vision",)


class Qwen3VlReader(QwenReader):
    """Qwen3-VL."""

    processor_class = Qwen3VlProcessor
    towers = ("qwen3_vl_vision",)
