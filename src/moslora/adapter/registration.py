"""Entering MoSLoRA into PEFT 0.21's registries, the way PEFT's own methods stand there."""

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from moslora.adapter.config import MosloraConfig, MosloraType
from moslora.adapter.tuner import MosloraModel


def register() -> None:
    """Make PEFT know the type MOSLORA; calling it again changes nothing."""
    PEFT_TYPE_TO_CONFIG_MAPPING[MosloraType.MOSLORA] = MosloraConfig  # pyright: ignore[reportArgumentType]
    PEFT_TYPE_TO_TUNER_MAPPING[MosloraType.MOSLORA] = MosloraModel  # pyright: ignore[reportArgumentType]
    PEFT_TYPE_TO_PREFIX_MAPPING[MosloraType.MOSLORA] = MosloraModel.prefix  # pyright: ignore[reportArgumentType]
