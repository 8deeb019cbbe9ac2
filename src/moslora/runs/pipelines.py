"""Loading a text-to-image model from a folder or the hub as diffusers keeps it; one without weights, to check on.

Weights are read from safetensors only, and no code that comes with a model is run.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from moslora.errors import ConfigError, MissingDependencyError, MosloraError
from moslora.runs.models import LOADING_ERRORS, choose_dtype, resolve_model
from moslora.runs.subject_settings import SubjectModelSettings
from moslora.training.diffusion import TextToImage
from moslora.training.layouts import Layout, layout_of

LIBRARIES = ("diffusers", "transformers")


def load_pipeline(settings: SubjectModelSettings, *, is_plain: bool = False) -> Any:
    """The pipeline, as diffusers loads it, on the first accelerator if there is one.

    Its autoencoder has a dtype of its own. Raises ConfigError for one that cannot be found or loaded or is not trained
    here, MissingDependencyError without diffusers.
    """
    dtype = choose_dtype(settings.dtype)
    with _one_line(settings):
        from diffusers import AutoencoderKL, DiffusionPipeline

        layout_of(pipeline_class(settings))
        dtypes = {"default": dtype, "vae": getattr(torch, settings.autoencoder_dtype)}
        options = _options(settings) | {"dtype": dtypes, "use_safetensors": True}
        if settings.autoencoder is not None:
            options["vae"] = AutoencoderKL.from_pretrained(
                settings.autoencoder, dtype=dtypes["vae"], use_safetensors=True
            )
        pipe = DiffusionPipeline.from_pretrained(resolve_model(settings.path), **options)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(_device(settings))


def load_text_to_image(settings: SubjectModelSettings) -> TextToImage:
    """The pipeline as a model to train. Raises as `load_pipeline`."""
    pipe = load_pipeline(settings)
    return TextToImage.of(pipe, layout=layout_of(type(pipe).__name__), path=resolve_model(settings.path))


def meta_text_to_image(settings: SubjectModelSettings) -> TextToImage:
    """The model without weights, on the meta device: only configurations are read. Raises as `load_pipeline`."""
    with _one_line(settings):
        index = pipeline_index(settings)
        layout, path = layout_of(index["_class_name"]), resolve_model(settings.path)
        with torch.device("meta"):
            parts = {name: _meta_part(settings, index, name) for name in _parts(layout, index)}
        return TextToImage(parts, layout=layout, path=path)


def load_tokenizers(settings: SubjectModelSettings) -> dict[str, Any]:
    """The tokenizer of each text encoder that the model has, by the encoder's name."""
    import transformers

    with _one_line(settings):
        index = pipeline_index(settings)
        layout = layout_of(index["_class_name"])
        found = {}
        for encoder in _parts(layout, index):
            name = encoder.replace("text_encoder", "tokenizer")
            if encoder in layout.encoders and name in index:
                kind = getattr(transformers, index[name][1])
                found[encoder] = kind.from_pretrained(
                    resolve_model(settings.path), subfolder=name, revision=settings.revision
                )
        return found


def pipeline_index(settings: SubjectModelSettings) -> dict[str, Any]:
    """What the model's `model_index.json` says: its class, and the class of each part."""
    from diffusers import DiffusionPipeline

    found: Any = DiffusionPipeline.load_config(resolve_model(settings.path), revision=settings.revision)
    return dict(found)


def pipeline_class(settings: SubjectModelSettings) -> str:
    """The name of the pipeline's class."""
    return pipeline_index(settings)["_class_name"]


def part_config(settings: SubjectModelSettings, name: str) -> dict[str, Any]:
    """The configuration of a part that is one of diffusers' own, such as the denoiser or the autoencoder."""
    index = pipeline_index(settings)
    kind: Any = getattr(importlib.import_module("diffusers"), index[name][1])
    own = settings.autoencoder if name == "vae" else None
    place = (
        {"pretrained_model_name_or_path": own}
        if own
        else {
            "pretrained_model_name_or_path": resolve_model(settings.path),
            "subfolder": name,
            "revision": settings.revision,
        }
    )
    return dict(kind.load_config(**place))


def _parts(layout: Layout, index: dict[str, Any]) -> list[str]:
    return [name for name in (layout.denoiser, *layout.encoders) if (index.get(name) or [None])[0] in LIBRARIES]


def _meta_part(settings: SubjectModelSettings, index: dict[str, Any], name: str) -> Any:
    library, class_name = index[name]
    kind: Any = getattr(importlib.import_module(library), class_name)
    path = resolve_model(settings.path)
    if library == "diffusers":
        return kind.from_config(kind.load_config(path, subfolder=name, revision=settings.revision))
    config = kind.config_class.from_pretrained(path, subfolder=name, revision=settings.revision)
    return kind(config)


def _options(settings: SubjectModelSettings) -> dict[str, Any]:
    given = {"revision": settings.revision, "variant": settings.variant}
    return {name: value for name, value in given.items() if value is not None}


def _device(settings: SubjectModelSettings) -> torch.device:
    """One device for all parts: the one asked for, this process's own accelerator, or the CPU."""
    if settings.device_map:
        return torch.device(settings.device_map)
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return torch.device("cpu")
    return torch.device(found.type, int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def _one_line(settings: SubjectModelSettings) -> Iterator[None]:
    """Turn what diffusers raises for a model that cannot be loaded into one line, and keep it quiet."""
    try:
        from diffusers.utils import logging
    except ImportError as error:
        raise MissingDependencyError(
            'runs of the kind subject need diffusers: pip install "moslora[images]"'
        ) from error
    level = logging.get_verbosity()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
    except (MosloraError, torch.OutOfMemoryError):
        raise
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"model.path '{settings.path}' cannot be loaded: {reason} (give a folder with a model_index.json, or a hub"
            " id that can be reached)"
        ) from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
