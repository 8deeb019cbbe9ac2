"""What the types of models that read pictures differ in, as far as their processors go."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from moslora.runs.image_processors import describe_image_processor


class PictureReader(ABC):
    """How models of one type take pictures: checked, and told as text before any pixel is read.

    `processor_class` is of transformers, `towers` are the types of vision towers tested here, `is_reshapable` says
    whether pictures may be padded or cropped otherwise than the model's folder says, and `can_cache` whether a
    picture's features may be kept.
    """

    processor_class: ClassVar[Any]
    towers: ClassVar[tuple[str, ...]]
    is_reshapable: ClassVar[bool] = False
    can_cache: ClassVar[bool] = False
    own_shape: ClassVar[str]
    """What becomes of pictures, for messages that refuse another shape."""

    @abstractmethod
    def text(self, processor: Any, *, width: int, height: int) -> str:
        """What stands in the text for a picture of this size in pixels, its start and end included."""

    def placeholder(self, processor: Any) -> tuple[str, int]:
        """The token in whose places a picture's features go: its text and its id."""
        return processor.image_token, processor.image_token_id

    @abstractmethod
    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """Set what the processor's file, read as `given`, leaves open and the model's configuration tells."""

    @abstractmethod
    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """Values that must agree, by name: the processor's, and what the model needs."""

    def wrong_pixels(self, processor: Any, config: Any) -> list[str]:
        """What is wrong with the pictures that the tower would get."""
        return []

    def describe(self, processor: Any) -> dict[str, Any]:
        """What decides the pixels and tokens of a picture, as plain values."""
        return {"processor": type(processor).__name__, **describe_image_processor(processor.image_processor)}
