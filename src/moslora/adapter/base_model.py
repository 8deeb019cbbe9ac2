"""What an adapter remembers of its base model, and whether another base has the same shape."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from moslora.errors import CheckpointError

SHAPE_FIELDS = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "_class_name",
    "in_channels",
    "block_out_channels",
    "cross_attention_dim",
    "layers_per_block",
)
PART_FIELDS = ("text_config", "vision_config")


class BaseShape(dict[str, Any]):
    """The shape of a base model as seen in this process; one that was read from a file is a plain dictionary."""


def describe_base(model: nn.Module) -> BaseShape:
    """Type, layers, sizes and vocabulary from the model's config; empty for a model without one."""
    config = getattr(model, "config", None)
    shape = BaseShape(_describe(config))
    for part in PART_FIELDS:
        inner = getattr(config, part, None)
        if inner is not config:
            shape.update({f"{part}.{field}": value for field, value in _describe(inner).items()})
    return shape


def check_same_base(recorded: Mapping[str, Any], model: nn.Module) -> None:
    """Raise CheckpointError when `model` has another shape than the base the adapter was trained on."""
    actual = describe_base(model)
    differences = [
        f"{field} {recorded[field]} there, {actual[field]} here"
        for field in recorded
        if field in actual and actual[field] != recorded[field]
    ]
    if differences:
        raise CheckpointError(
            f"this adapter was trained on another base model: {'; '.join(differences[:4])};"
            " load the base it was trained on (base_model_name_or_path in adapter_config.json), or, to start afresh"
            " from this config, set its base_model_config to None"
        )


def _describe(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    shape = {}
    for field in SHAPE_FIELDS:
        value = config.get(field) if isinstance(config, Mapping) else getattr(config, field, None)
        if isinstance(value, (int, str)):
            shape[field] = value
        elif isinstance(value, (list, tuple)):
            shape[field] = list(value)
    return shape
