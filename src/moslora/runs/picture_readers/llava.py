"""LLaVA and LLaVA-NeXT: each feature of the tower is a token, of the picture or of its tiles."""

from collections.abc import Mapping
from typing import Any

from transformers import LlavaNextProcessor, LlavaProcessor, PreTrainedConfig

from moslora.errors import ConfigError, unknown_name
from moslora.runs.image_processors import pixel_size, plain_size
from moslora.runs.picture_readers.reader import PictureReader

CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "dinov2": 1}  # vision tower: features beside patches
ADDITIONAL = "num_additional_image_tokens"


class LlavaReader(PictureReader):
    """One picture of the tower's size."""

    processor_class = LlavaProcessor
    towers = tuple(CLASS_TOKENS)
    is_reshapable = True
    can_cache = True
    own_shape = "gives the tower one picture"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """As many image tokens as features are read; the picture's own size makes no difference."""
        pixels = pixel_size(processor.image_processor)
        if pixels is None:
            raise ConfigError("the processor gives pictures of different sizes: load it with load_processor")
        patches = (pixels[0] // processor.patch_size) * (pixels[1] // processor.patch_size)
        is_first_dropped = processor.vision_feature_select_strategy == "default"
        return processor.image_token * (patches + processor.num_additional_image_tokens - is_first_dropped)

    def complete(self, processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
        """An additional token of 0 is open where the patch size is."""
        for name, right in _needed(config).items():
            is_unset_zero = name == ADDITIONAL and given.get("patch_size") is None
            if given.get(name) is None or is_unset_zero:
                setattr(processor, name, right)
        tokenizer, number = processor.tokenizer, config.image_token_index
        if given.get("image_token") is None and number < len(tokenizer):
            processor.image_token, processor.image_token_id = tokenizer.convert_ids_to_tokens(number), number

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """The numbers that patches are counted by, and the image token."""
        right = _needed(config) | {"image_token_id": config.image_token_index}
        return {name: (getattr(processor, name), value) for name, value in right.items()}

    def wrong_pixels(self, processor: Any, config: Any) -> list[str]:
        """Pictures of another size than the tower has positions for."""
        return differing_pixels(pixel_size(processor.image_processor), config.vision_config)

    def describe(self, processor: Any) -> dict[str, Any]:
        """With the numbers that patches are counted by."""
        return super().describe(processor) | {
            "patch_size": processor.patch_size,
            ADDITIONAL: processor.num_additional_image_tokens,
            "vision_feature_select_strategy": processor.vision_feature_select_strategy,
            "image_token": processor.image_token,
            "image_token_id": processor.image_token_id,
        }


class LlavaNextReader(LlavaReader):
    """The picture once more as tiles of the tower's size."""

    processor_class = LlavaNextProcessor
    towers = ("clip_vision_model",)
    is_reshapable = False
    can_cache = False
    own_shape = "cuts pictures into tiles"

    def text(self, processor: Any, *, width: int, height: int) -> str:
        """As many image tokens as the tiles have features, without those of padding."""
        found = processor._get_num_multimodal_tokens(image_sizes=[[height, width]])["num_image_tokens"]
        return processor.image_token * found[0]

    def numbers(self, processor: Any, config: Any) -> dict[str, tuple[Any, Any]]:
        """With the shapes that tiles may have together."""
        images = processor.image_processor
        return super().numbers(processor, config) | {
            "tiles": (_lists(images.image_grid_pinpoints), _lists(config.image_grid_pinpoints)),
            "size": (min(plain_size(images.size).values()), config.vision_config.image_size),
        }


def class_tokens(tower: PreTrainedConfig) -> int:
    """How many features a vision tower gives beside one a patch. Raises ConfigError for a tower that is not tested."""
    if tower.model_type not in CLASS_TOKENS:
        raise unknown_name("vision tower", tower.model_type, CLASS_TOKENS)
    return CLASS_TOKENS[tower.model_type]


def differing_pixels(pixels: tuple[int, int] | None, tower: Any) -> list[str]:
    """What is wrong with the size of the pictures that the tower would get; DINOv2 interpolates its positions."""
    needed = f"{tower.image_size} x {tower.image_size} pixels"
    if pixels is None:
        return [f"it keeps the shape of each picture and the model needs {needed}"]
    if tower.model_type == "dinov2":
        needed = f"multiples of {tower.patch_size} pixels"
        is_right = not any(side % tower.patch_size for side in pixels)
    else:
        is_right = pixels == (tower.image_size, tower.image_size)
    return [] if is_right else [f"pictures become {pixels[0]} x {pixels[1]} pixels and the model needs {needed}"]


def _needed(config: Any) -> dict[str, Any]:
    tower = config.vision_config
    return {
        "patch_size": tower.patch_size,
        ADDITIONAL: class_tokens(tower),
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


def _lists(tiles: Any) -> list[list[int]]:
    return [list(tile) for tile in tiles]
