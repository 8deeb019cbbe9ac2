"""The processor of a model that reads pictures: loaded, checked against the model, described.

Pictures go through Pillow on every machine, torchvision or not, so that training and evaluation see the same pixels.
What a processor's file does not say about the model (patch size, class token, feature selection) is taken from the
model's configuration; what it says otherwise than the model is refused before any weight is loaded.
"""

from collections.abc import Mapping
from typing import Any

from transformers import AutoImageProcessor, PreTrainedConfig

from moslora.errors import ConfigError, unknown_name
from moslora.runs.image_processors import PADDINGS, pixel_size, reshaped
from moslora.runs.models import LOADING_ERRORS, resolve_model
from moslora.runs.picture_readers import READERS, PictureReader, reader_of

WHY_NOT = {
    "paligemma": "it has no turns, and no chat template",
    "internvl": "its processor reads videos too, which needs torchvision",
    "llava_onevision": "its processor reads videos too, which needs torchvision",
}


def check_supported(config: PreTrainedConfig) -> None:
    """Refuse a model whose pictures are not tested here. Raises ConfigError with the type, and the reason if known."""
    kind = config.model_type
    if kind not in READERS:
        reason = f" ({WHY_NOT[kind]})" if kind in WHY_NOT else ""
        raise ConfigError(
            f"models of type '{kind}' are not trained on pictures here{reason}; allowed: {', '.join(sorted(READERS))}"
        )
    tower, towers = config.vision_config.model_type, READERS[kind].towers
    if tower not in towers:
        raise ConfigError(
            f"the vision tower '{tower}' of a '{kind}' model is not tested here; allowed: {', '.join(towers)}"
        )


def load_processor(path: str, model_config: PreTrainedConfig, *, pad: str = "own", revision: str | None = None) -> Any:
    """The processor of the model at `path` (local folder or hub id), made to agree with `model_config`.

    `pad` says what happens to pictures that are not square: `own` leaves it to the folder, `square` pads them with the
    mean colour, `crop` resizes the shorter edge and cuts the longer one. Raises ConfigError for a model that is not in
    `READERS`, a processor that cannot be built, and one that disagrees with the model.
    """
    check_supported(model_config)
    if pad not in PADDINGS:
        raise unknown_name("padding", pad, PADDINGS)
    reader = READERS[model_config.model_type]
    place = {"pretrained_model_name_or_path": resolve_model(path)} | ({"revision": revision} if revision else {})
    try:
        given, _ = reader.processor_class.get_processor_dict(**place)
        processor = reader.processor_class.from_pretrained(**place)
        processor.image_processor = AutoImageProcessor.from_pretrained(**place, backend="pil")
    except (*LOADING_ERRORS, AttributeError) as error:  # the latter for a tokenizer without the model's tokens
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"'{path}' has no processor that can be loaded: {reason} (a model that reads pictures comes with"
            " preprocessor_config.json or processor_config.json and a tokenizer)"
        ) from error
    if pad != "own":
        if not reader.is_reshapable:
            raise ConfigError(f"'{model_config.model_type}' {reader.own_shape}: leave the padding at own, not {pad}")
        own = pixel_size(processor.image_processor) or (model_config.vision_config.image_size,)
        processor.image_processor = reshaped(processor.image_processor, pad=pad, side=own[0])
    reader.complete(processor, given, config=model_config)
    _check(processor, model_config, reader=reader, path=path)
    return processor


def picture_text(processor: Any, *, width: int, height: int) -> str:
    """What stands in a text for a picture of this size in pixels, its start and end included; no pixels are read."""
    return reader_of(processor).text(processor, width=width, height=height)


def image_tokens(processor: Any, *, width: int, height: int) -> int:
    """How many features of a picture of this size in pixels the model reads, each in a token's place."""
    return picture_text(processor, width=width, height=height).count(placeholder(processor)[0])


def placeholder(processor: Any) -> tuple[str, int]:
    """The token in whose places a picture's features go: its text and its id."""
    return reader_of(processor).placeholder(processor)


def describe_processor(processor: Any) -> dict[str, Any]:
    """What decides the pixels and tokens of a picture, as plain values for a record; see `check_same_processing`."""
    return reader_of(processor).describe(processor)


def check_same_processing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to evaluate on other pixels than those trained on. Raises ConfigError naming each difference."""
    names = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
    if names:
        listed = ", ".join(f"{name} was {saved.get(name)!r} and is {now.get(name)!r}" for name in names)
        raise ConfigError(
            f"pictures would not be processed as in training: {listed}; use the processor that was saved with the"
            " adapter, or train again"
        )


def _check(processor: Any, config: PreTrainedConfig, *, reader: PictureReader, path: str) -> None:
    """Compare processor and model number by number."""
    wrong = [
        f"{name} is {found!r} and the model needs {right!r}"
        for name, (found, right) in reader.numbers(processor, config).items()
        if found != right
    ]
    wrong += reader.wrong_pixels(processor, config)
    token, number = reader.placeholder(processor)
    encoded = processor.tokenizer.encode(token, add_special_tokens=False)
    if encoded != [number]:
        wrong.append(f"'{token}' becomes tokens {encoded[:4]}, not [{number}]")
    if wrong:
        raise ConfigError(
            f"the processor of '{path}' does not fit the model: {'; '.join(wrong)} (mend processor_config.json or"
            " preprocessor_config.json, or get the folder again)"
        )
