"""Features of models that transformers loads: CLIP and SigLIP by their projections, DINOv2 and ViT by the class token.

Pictures go through Pillow, by the folder's own image processor, so that every machine computes the same numbers. A
folder without one gets its family's, in the size of the model, and its name says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from moslora.errors import CheckpointError, ConfigError
from moslora.evaluation.features import EMBEDDED, Features

LOADING_ERRORS = (OSError, ValueError, LookupError, RuntimeError, ImportError, SafetensorError)
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
LEGACY_END = 2  # of CLIP's configurations: the end of a text is its largest token


@dataclass(frozen=True)
class _Family:
    class_name: str
    processor: str  # module and class below transformers.models
    has_exact_size: bool  # its processor stretches pictures to it, else it cuts them
    padding: str | None = None  # of texts, where it reads them
    processing: tuple[tuple[str, Any], ...] = ()  # where it differs from the processor's own
    options: tuple[tuple[str, Any], ...] = ()


_BIT = "bit.image_processing_pil_bit.BitImageProcessorPil"
_IMAGENET = (("image_mean", (0.485, 0.456, 0.406)), ("image_std", (0.229, 0.224, 0.225)))
FAMILIES = {
    "clip": _Family("CLIPModel", "clip.image_processing_pil_clip.CLIPImageProcessorPil", False, "longest"),
    "siglip": _Family("SiglipModel", "siglip.image_processing_pil_siglip.SiglipImageProcessorPil", True, "max_length"),
    "dinov2": _Family("Dinov2Model", _BIT, False, processing=_IMAGENET),
    "dinov2_with_registers": _Family("Dinov2WithRegistersModel", _BIT, False, processing=_IMAGENET),
    "vit": _Family(
        "ViTModel", "vit.image_processing_pil_vit.ViTImageProcessorPil", True, options=(("add_pooling_layer", False),)
    ),
}


def load_pretrained(source: str, device: torch.device) -> Features:
    """The features of a model by hub id or folder; see `moslora.evaluation.features.open_features`."""
    folder = Path(source).expanduser()
    place = str(folder) if folder.is_dir() else source
    config = _loaded(lambda: AutoConfig.from_pretrained(place), source)
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"'{source}' is a model of type '{config.model_type}', whose features are not supported (allowed:"
            f" {', '.join(FAMILIES)}, and '{EMBEDDED}')"
        )
    family = FAMILIES[config.model_type]
    model = _model(place, family, source=source).to(device)
    processor, is_own = _processor(place, family, config, source=source)
    # The name of a folder, not where it lies: numbers are compared across machines.
    shown = folder.name if folder.is_dir() else source

    def encode_pictures(pictures: list[Image.Image]) -> torch.Tensor:
        pixels = [processor(images=[picture], return_tensors="pt")["pixel_values"] for picture in pictures]
        sizes = {tuple(one.shape[2:]) for one in pixels}
        if len(sizes) > 1:
            raise ConfigError(
                f"the image processor of '{source}' gives pictures of different sizes ({sorted(sizes)[:3]}); set its"
                " do_center_crop or an exact size"
            )
        return _picture_vectors(model, torch.cat(pixels).to(device), has_texts=family.padding is not None)

    texts = {} if family.padding is None else _texts(place, model, padding=family.padding, source=source)
    return Features(
        model=f"{shown} ({family.class_name}, {_width(config)} values)",
        preprocessing=describe(processor) + ("" if is_own else " (the folder has no image processor)"),
        encode_pictures=encode_pictures,
        **texts,
    )


def describe(processor: Any) -> str:
    """What an image processor of Pillow does with a picture, in a few words."""
    steps = []
    if processor.do_resize:
        size = {name: value for name, value in dict(processor.size).items() if value is not None}
        is_exact = "height" in size
        to = f"{size['height']} x {size['width']} px" if is_exact else f"{next(iter(size.values()))} px a shorter side"
        steps.append(f"resized to {to} {Image.Resampling(processor.resample).name.lower()}")
    if getattr(processor, "do_center_crop", False):
        crop = dict(processor.crop_size)
        steps.append(f"middle {crop['height']} x {crop['width']} px")
    if processor.do_normalize:
        steps.append("mean " + " ".join(f"{value:.3g}" for value in processor.image_mean))
    return ", ".join(steps)


def _model(place: str, family: _Family, *, source: str) -> Any:
    model_class = getattr(transformers, family.class_name)
    options = {"dtype": torch.float32, "use_safetensors": True, "output_loading_info": True, **dict(family.options)}
    model, info = _loaded(lambda: model_class.from_pretrained(place, **options), source)
    missing = sorted(info["missing_keys"])
    if missing:  # transformers draws these at random, with a warning
        raise CheckpointError(
            f"'{source}' lacks {len(missing)} weights of {family.class_name} ({', '.join(missing[:3])}); get it again,"
            " or name the whole model"
        )
    return model.eval()


def _processor(place: str, family: _Family, config: Any, *, source: str) -> tuple[Any, bool]:
    """The image processor, and whether it is the folder's own."""
    folder = Path(place)
    if not folder.is_dir() or any((folder / name).is_file() for name in PROCESSOR_FILES):
        return _loaded(lambda: AutoImageProcessor.from_pretrained(place, backend="pil"), source), True
    module, _, name = family.processor.rpartition(".")
    processor_class = getattr(import_module(f"transformers.models.{module}"), name)
    side = getattr(config, "vision_config", config).image_size
    exact = {"height": side, "width": side}
    sizes = {"size": exact} if family.has_exact_size else {"size": {"shortest_edge": side}, "crop_size": exact}
    return processor_class(**sizes, **dict(family.processing)), False


def _texts(place: str, model: Any, *, padding: str, source: str) -> dict[str, Any]:
    tokenizer = _loaded(lambda: AutoTokenizer.from_pretrained(place), source)
    most = model.config.text_config.max_position_embeddings
    end = model.config.text_config.eos_token_id
    if model.config.model_type == "clip" and end not in (LEGACY_END, tokenizer.eos_token_id):
        raise CheckpointError(
            f"'{source}' takes the vector of a text at token {end}, and its tokenizer ends texts with"
            f" {tokenizer.eos_token_id}, so all texts would look alike; correct eos_token_id in config.json"
        )

    def encode(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding=padding, truncation=True, max_length=most, return_tensors="pt")
        found = model.get_text_features(**tokens.to(model.device))
        return found.pooler_output

    return {"text_form": f"at most {most} tokens, padding: {padding.replace('_', ' ')}", "encode_texts": encode}


def _picture_vectors(model: Any, pixels_NCHW: torch.Tensor, *, has_texts: bool) -> torch.Tensor:
    if has_texts:
        return model.get_image_features(pixel_values=pixels_NCHW).pooler_output
    return model(pixel_values=pixels_NCHW).last_hidden_state[:, 0]


def _width(config: Any) -> int:
    if config.model_type == "clip":
        return config.projection_dim
    return getattr(config, "vision_config", config).hidden_size


def _loaded(load: Callable[[], Any], source: str) -> Any:
    try:
        return load()
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"'{source}' gives no features: {reason} (give the hub id or the folder of a model of one of"
            f" {', '.join(FAMILIES)}, or '{EMBEDDED}')"
        ) from error
