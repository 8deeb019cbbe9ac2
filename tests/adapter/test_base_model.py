"""What an adapter records of its base model's shape."""

from unittest.mock import MagicMock

from torch import nn
from transformers import LlamaConfig

from moslora.adapter.base_model import describe_base


def model_with(config):
    model = nn.Linear(2, 2)
    model.config = config
    return model


def test_the_parts_of_a_composite_model_are_described():
    shape = describe_base(model_with(MagicMock(text_config=LlamaConfig(hidden_size=64), hidden_size=32)))
    assert shape["hidden_size"] == 32
    assert shape["text_config.hidden_size"] == 64
    assert shape["text_config.model_type"] == "llama"


def test_a_configuration_that_has_a_part_for_every_name_is_described_once():
    assert describe_base(model_with(MagicMock())) == {}


def test_a_model_without_a_configuration_has_no_shape():
    assert describe_base(nn.Linear(2, 2)) == {}
