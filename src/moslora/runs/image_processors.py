"""What an image processor makes of a picture's shape: padded, cropped, stretched, or cut into tiles."""

from typing import Any

from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from moslora.errors import unknown_name

PADDINGS = ("own", "square", "crop")
RESHAPING = PADDINGS[1:]
KEPT = ("resample", "image_mean", "image_std", "do_rescale", "rescale_factor", "do_normalize", "do_convert_rgb")


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
    size, crop = plain_size(image_processor.size), plain_size(getattr(image_processor, "crop_size", None))
    if getattr(image_processor, "do_center_crop", False) and crop:
        return crop["height"], crop["width"]
    if not image_processor.do_resize:
        return None
    if "height" in size:
        return size["height"], size["width"]
    is_padded = isinstance(image_processor, LlavaImageProcessorPil) and image_processor.do_pad
    return (size["shortest_edge"], size["shortest_edge"]) if is_padded and "shortest_edge" in size else None


def plain_size(size: Any) -> dict[str, int]:
    """A size as transformers keeps it, as the numbers that it has."""
    return {} if size is None else {name: value for name, value in dict(size).items() if value is not None}


def describe_image_processor(images: Any) -> dict[str, Any]:
    """What decides the pixels of a picture, as plain values."""
    tiles = getattr(images, "image_grid_pinpoints", None)
    return {
        "image_processor": type(images).__name__,
        "padding": _padding_of(images),
        "size": plain_size(images.size),
        "crop_size": plain_size(images.crop_size) if getattr(images, "do_center_crop", False) else None,
        "tiles": None if tiles is None else [list(tile) for tile in tiles],
        "resample": Image.Resampling(images.resample).name.lower() if images.do_resize else None,
        "rescale_factor": images.rescale_factor if images.do_rescale else None,
        "mean": list(images.image_mean) if images.do_normalize else None,
        "std": list(images.image_std) if images.do_normalize else None,
    }


def _padding_of(images: Any) -> str:
    if getattr(images, "image_grid_pinpoints", None) is not None or getattr(images, "do_image_splitting", False):
        return "tiles"
    if isinstance(images, LlavaImageProcessorPil) and images.do_pad:
        return "square"
    return "crop" if getattr(images, "do_center_crop", False) else "stretch"
