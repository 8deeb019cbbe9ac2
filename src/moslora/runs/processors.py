"""The processor of a model that reads pictures: loaded, checked against the model, described.

Pictures go through Pillow on every machine, torchvision or not, so that training and evaluation see the same pixels.
What a processor's file does not say about the model (patch size, class token, feature selection) is taken from the
model's configuration; what it says otherwise than the model is refused before any weight is loaded.
"""

from collections.abc import Mapping
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor, LlavaNextProcessor, LlavaProcessor, PreTrainedConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from moslora.errors import ConfigError, unknown_name
from moslora.runs.models import LOADING_ERRORS, resolve_model

CLASSES: dict[str, Any] = {"llava": LlavaProcessor, "llava_next": LlavaNextProcessor}
CLASS_TOKENS = {"clip_vision_model": 1, "siglip_vision_model": 0, "dinov2": 1}  # vision tower: features beside patches
SUPPORTED = {"llava": tuple(CLASS_TOKENS), "llava_next": ("clip_vision_model",)}  # model_type: vision towers tested
WHY_NOT = {
    "qwen2_vl": "its processor needs torchvision, and its positions are counted per picture",
    "qwen2_5_vl": "its processor needs torchvision, and its positions are counted per picture",
    "qwen3_vl": "its processor needs torchvision, and its positions are counted per picture",
    "internvl": "its processor reads videos too, which needs torchvision",
    "llava_onevision": "its processor reads videos too, which needs torchvision",
}
PADDINGS = ("own", "square", "crop")
RESHAPING = PADDINGS[1:]
KEPT = ("resample", "image_mean", "image_std", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")
ADDITIONAL = "num_additional_image_tokens"


def check_supported(config: PreTrainedConfig) -> None:
    """Refuse a model whose pictures are not tested here. Raises ConfigError with the type, and the reason if known."""
    kind = config.model_type
    if kind not in SUPPORTED:
        reason = f" ({WHY_NOT[kind]})" if kind in WHY_NOT else ""
        raise ConfigError(
            f"models of type '{kind}' are not trained on pictures here{reason}; allowed: {', '.join(sorted(SUPPORTED))}"
        )
    tower = _tower(config).model_type
    if tower not in SUPPORTED[kind]:
        raise ConfigError(
            f"the vision tower '{tower}' of a '{kind}' model is not tested here; allowed: {', '.join(SUPPORTED[kind])}"
        )


def load_processor(path: str, model_config: PreTrainedConfig, *, pad: str = "own", revision: str | None = None) -> Any:
    """The processor of the model at `path` (local folder or hub id), made to agree with `model_config`.

    `pad` says what happens to pictures that are not square: `own` leaves it to the folder, `square` pads them with the
    mean colour, `crop` resizes the shorter edge and cuts the longer one. Raises ConfigError for a model that is not in
    `SUPPORTED`, a processor that cannot be built, and one that disagrees with the model.
    """
    check_supported(model_config)
    if pad not in PADDINGS:
        raise unknown_name("padding", pad, PADDINGS)
    kind = CLASSES[model_config.model_type]
    place = {"pretrained_model_name_or_path": resolve_model(path)} | ({"revision": revision} if revision else {})
    try:
        given, _ = kind.get_processor_dict(**place)
        processor = kind.from_pretrained(**place)
        processor.image_processor = AutoImageProcessor.from_pretrained(**place, backend="pil")
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"'{path}' has no processor that can be loaded: {reason} (a model that reads pictures comes with"
            " preprocessor_config.json or processor_config.json and a tokenizer)"
        ) from error
    if pad != "own":
        if model_config.model_type != "llava":
            raise ConfigError(
                f"'{model_config.model_type}' cuts pictures into tiles: leave the padding at own, not {pad}"
            )
        own = pixel_size(processor.image_processor) or (_tower(model_config).image_size,)
        processor.image_processor = reshaped(processor.image_processor, pad=pad, side=own[0])
    _fill_numbers(processor, given, config=model_config)
    _check(processor, model_config, path=path)
    return processor


def image_tokens(processor: Any, *, width: int, height: int) -> int:
    """How many tokens a picture of this size in pixels becomes, its start and end included; no pixels are read."""
    if isinstance(processor, LlavaNextProcessor):
        return processor._get_num_multimodal_tokens(image_sizes=[[height, width]])["num_image_tokens"][0]
    pixels = pixel_size(processor.image_processor)
    if pixels is None:
        raise ConfigError("the processor gives pictures of different sizes: load it with load_processor")
    patches = (pixels[0] // processor.patch_size) * (pixels[1] // processor.patch_size)
    is_first_dropped = processor.vision_feature_select_strategy == "default"
    return patches + processor.num_additional_image_tokens - is_first_dropped


def reshaped(image_processor: Any, *, pad: str, side: int) -> Any:
    """An image processor that gives pictures of side x side pixels, by padding to a square or by cropping to it.

    Colours, their scale and the resampling stay as they are. Raises ConfigError for another `pad` than square or crop.
    """
    if pad not in RESHAPING:
        raise unknown_name("padding", pad, RESHAPING)
    return LlavaImageProcessorPil(
        do_pad=pad == "square",
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        **{name: getattr(image_processor, name) for name in KEPT},
    )


def pixel_size(image_processor: Any) -> tuple[int, int] | None:
    """Height and width in pixels of what the model gets, whatever the picture; None where they depend on it."""
    size, crop = _plain(image_processor.size), _plain(getattr(image_processor, "crop_size", None))
    if getattr(image_processor, "do_center_crop", False) and crop:
        return crop["height"], crop["width"]
    if not image_processor.do_resize:
        return None
    if "height" in size:
        return size["height"], size["width"]
    is_padded = isinstance(image_processor, LlavaImageProcessorPil) and image_processor.do_pad
    return (size["shortest_edge"], size["shortest_edge"]) if is_padded and "shortest_edge" in size else None


def describe_processor(processor: Any) -> dict[str, Any]:
    """What decides the pixels and tokens of a picture, as plain values for a record; see `check_same_processing`."""
    images = processor.image_processor
    tiles = getattr(images, "image_grid_pinpoints", None)
    return {
        "processor": type(processor).__name__,
        "image_processor": type(images).__name__,
        "padding": _padding_of(images),
        "size": _plain(images.size),
        "crop_size": _plain(images.crop_size) if getattr(images, "do_center_crop", False) else None,
        "tiles": None if tiles is None else [list(tile) for tile in tiles],
        "resample": Image.Resampling(images.resample).name.lower() if images.do_resize else None,
        "rescale_factor": images.rescale_factor if images.do_rescale else None,
        "mean": list(images.image_mean) if images.do_normalize else None,
        "std": list(images.image_std) if images.do_normalize else None,
        "patch_size": processor.patch_size,
        ADDITIONAL: processor.num_additional_image_tokens,
        "vision_feature_select_strategy": processor.vision_feature_select_strategy,
        "image_token": processor.image_token,
        "image_token_id": processor.image_token_id,
    }


def check_same_processing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to evaluate on other pixels than those trained on. Raises ConfigError naming each difference."""
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if names:
        listed = ", ".join(f"{name} was {saved.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise ConfigError(
            f"pictures would not be processed as in training: {listed}; use the processor that was saved with the"
            " adapter, or train again"
        )


def class_tokens(tower: PreTrainedConfig) -> int:
    """How many features a vision tower gives beside one a patch. Raises ConfigError for a tower that is not tested."""
    if tower.model_type not in CLASS_TOKENS:
        raise unknown_name("vision tower", tower.model_type, CLASS_TOKENS)
    return CLASS_TOKENS[tower.model_type]


def _fill_numbers(processor: Any, given: Mapping[str, Any], *, config: PreTrainedConfig) -> None:
    """Set what the processor's file leaves open; an additional token of 0 is open where the patch size is."""
    for name, right in _numbers(config).items():
        is_unset_zero = name == ADDITIONAL and given.get("patch_size") is None
        if given.get(name) is None or is_unset_zero:
            setattr(processor, name, right)
    tokenizer, number = processor.tokenizer, config.image_token_index
    if given.get("image_token") is None and number < len(tokenizer):
        processor.image_token, processor.image_token_id = tokenizer.convert_ids_to_tokens(number), number


def _numbers(config: PreTrainedConfig) -> dict[str, Any]:
    tower = _tower(config)
    return {
        "patch_size": tower.patch_size,
        ADDITIONAL: class_tokens(tower),
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
    }


def _check(processor: Any, config: PreTrainedConfig, *, path: str) -> None:
    """Compare processor and model number by number."""
    right: dict[str, Any] = _numbers(config) | {"image_token_id": config.image_token_index}
    found = {name: getattr(processor, name) for name in right}
    if config.model_type == "llava_next":
        images = processor.image_processor
        right |= {"tiles": _lists(config.image_grid_pinpoints), "size": _tower(config).image_size}
        found |= {"tiles": _lists(images.image_grid_pinpoints), "size": min(_plain(images.size).values())}
    wrong = [
        f"{name} is {found[name]!r} and the model needs {right[name]!r}" for name in right if found[name] != right[name]
    ]
    wrong += _wrong_pixels(pixel_size(processor.image_processor), _tower(config))
    encoded = processor.tokenizer.encode(processor.image_token, add_special_tokens=False)
    if encoded != [processor.image_token_id]:
        wrong.append(f"'{processor.image_token}' becomes tokens {encoded[:4]}, not [{processor.image_token_id}]")
    if wrong:
        raise ConfigError(
            f"the processor of '{path}' does not fit the model: {'; '.join(wrong)} (mend processor_config.json or"
            " preprocessor_config.json, or get the folder again)"
        )


def _wrong_pixels(pixels: tuple[int, int] | None, tower: Any) -> list[str]:
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


def _padding_of(images: Any) -> str:
    if getattr(images, "image_grid_pinpoints", None) is not None:
        return "tiles"
    if isinstance(images, LlavaImageProcessorPil) and images.do_pad:
        return "square"
    return "crop" if getattr(images, "do_center_crop", False) else "stretch"


def _tower(config: PreTrainedConfig) -> Any:
    return config.vision_config


def _lists(tiles: Any) -> list[list[int]]:
    return [list(tile) for tile in tiles]


def _plain(size: Any) -> dict[str, int]:
    return {} if size is None else {name: value for name, value in dict(size).items() if value is not None}
