"""Which towers' features may be kept from one run to the next, and where they are kept."""

from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from moslora.adapter.part_layers import is_within
from moslora.adapter.twin import base_of
from moslora.errors import ConfigError
from moslora.files import cache_folder
from moslora.runs.picture_readers import READERS
from moslora.runs.processors import describe_processor
from moslora.training.cached_tower import Features

CHANCES = (  # the settings of towers that make what they give a matter of chance in training
    "attention_dropout",
    "attention_probs_dropout_prob",
    "dropout",
    "drop_path_rate",
    "hidden_dropout_prob",
)
ADVICE = "set data.cache_features to false"


def check_cacheable(model: Any, tower: str) -> None:
    """Refuse a model with its adapters whose tower, the module of this name in the base, would not give the same again.

    The weights are not looked at. Raises ConfigError.
    """
    base = base_of(model)
    reader = READERS[base.config.model_type]
    if not reader.can_cache:
        cacheable = ", ".join(f"'{name}'" for name, one in READERS.items() if one.can_cache)
        raise ConfigError(
            f"data.cache_features: a '{base.config.model_type}' model {reader.own_shape}, whose features are not kept"
            f" (allowed: {cacheable}); {ADVICE}"
        )
    trained = [name for name, one in base.named_parameters() if one.requires_grad and is_within(name, tower)]
    if trained:
        raise ConfigError(
            f"data.cache_features: the vision tower is trained ({len(trained)} tensors, {trained[0]} first), so its"
            f" features change; leave vision out of adapter.parts, or {ADVICE}"
        )
    config = base.config.vision_config
    if drawn := [f"{name} {chance}" for name in CHANCES if (chance := getattr(config, name, 0))]:
        raise ConfigError(
            f"data.cache_features: the vision tower's features are partly drawn at random in training"
            f" ({', '.join(drawn)}), and stored ones would not be; {ADVICE}"
        )


def features_of(model: nn.Module, processor: Any, *, tower: str, arguments: TrainingArguments) -> Features:
    """The features of the tower of this name, as training with these arguments computes them."""
    base = base_of(model)
    layers = base.config.vision_feature_layer
    return Features(
        base.get_submodule(tower),
        processor,
        layers=[layers] if isinstance(layers, int) else layers,
        autocast=torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None,
        about=describe_processor(processor),
        cache=cache_folder() / "features",
    )
