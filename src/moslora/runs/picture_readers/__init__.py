"""The types of models that are trained on pictures, and how each of them takes these."""

from types import MappingProxyType
from typing import Any

from moslora.runs.picture_readers.gemma import Gemma3Reader
from moslora.runs.picture_readers.idefics import Idefics3Reader, SmolVlmReader
from moslora.runs.picture_readers.llava import LlavaNextReader, LlavaReader
from moslora.runs.picture_readers.mistral import Mistral3Reader
from moslora.runs.picture_readers.qwen import Qwen2VlReader, Qwen3VlReader, Qwen25VlReader
from moslora.runs.picture_readers.reader import PictureReader

READERS: MappingProxyType[str, PictureReader] = MappingProxyType(
    {
        "llava": LlavaReader(),
        "llava_next": LlavaNextReader(),
        "gemma3": Gemma3Reader(),
        "idefics3": Idefics3Reader(),
        "smolvlm": SmolVlmReader(),
        "mistral3": Mistral3Reader(),
        "qwen2_vl": Qwen2VlReader(),
        "qwen2_5_vl": Qwen25VlReader(),
        "qwen3_vl": Qwen3VlReader(),
    }
)
_OF_PROCESSOR = {reader.processor_class: reader for reader in [*READERS.values()][::-1]}


def reader_of(processor: Any) -> PictureReader:
    """The reader for a processor of a model in `READERS`, of whichever type: they tell its pictures alike."""
    return _OF_PROCESSOR[type(processor)]
