"""How names and patterns must be written, in Python and for every method of a recipe."""

import dataclasses
import json
import re

import pytest

from moslora import MosloraConfig
from moslora.adapter.fields import check_fields
from moslora.adapter.methods import METHODS, method_config
from moslora.errors import ConfigError

WRONG = {
    "modules_to_save": [
        ("lm_head", "is text, and each letter would count as a name: write a list, ['lm_head']"),
        ({}, ""),
    ],
    "target_parameters": [("experts.down_proj", "is text, and each letter would count as a name")],
    "target_modules": [([1], "give a list of names"), (["q_proj", ""], "give a list of names"), ({"q_proj": 1}, "")],
    "exclude_modules": [(7, "give a list of names"), ([None], "give a list of names")],
    "layers_to_transform": [
        ("0", "give a whole number or a list"),
        (["0"], "a whole number"),
        ([-1], "a whole number"),
    ],
    "trainable_token_indices": [
        ("5", "give a list of token ids, [5, 6]"),
        (5, "give a list of token ids"),
        ({"embed_tokens": "5"}, "give a list of token ids"),
        ([True], "give a list of token ids"),
    ],
    "rank_pattern": [("q_proj", "give a mapping from patterns to numbers"), (["q_proj"], "give a mapping")],
    "alpha_pattern": [("q_proj", "give a mapping from patterns to numbers")],
    "mixer_pattern": [("identity", "give a mapping from patterns to mixers, such as {q_proj: identity}")],
    "dropout_pattern": [(0.1, "give a mapping from patterns to shares")],
}
BAD_PATTERNS = {
    "target_modules": "(q_proj",
    "exclude_modules": "*k_proj",
    "layers_pattern": ["layers["],
    "rank_pattern": {"q_proj)": 4},
    "alpha_pattern": {"(?P<q": 4},
    "mixer_pattern": {"q_proj)": "identity"},
    "dropout_pattern": {"*q_proj": 0.1},
    "modules_to_save": ["lm_head("],
}


def _refusal(field, value):
    with pytest.raises(ConfigError) as refusal:
        MosloraConfig(**{field: value, **({"layers_to_transform": [0]} if field == "layers_pattern" else {})})
    message = str(refusal.value)
    assert "\n" not in message
    assert message.startswith(field)
    return message


@pytest.mark.parametrize(
    ("field", "value", "said"), [(field, *case) for field, cases in WRONG.items() for case in cases]
)
def test_what_is_no_list_of_the_right_things_is_refused(field, value, said):
    assert said in _refusal(field, value)


@pytest.mark.parametrize(("field", "value"), BAD_PATTERNS.items())
def test_a_pattern_that_is_no_regular_expression_is_refused(field, value):
    assert "is not a regular expression (" in _refusal(field, value)


def test_a_flag_that_peft_could_not_compile_in_its_place_is_refused():
    assert "global flags" in _refusal("rank_pattern", {"(?i)Q_PROJ": 4})
    MosloraConfig(target_modules="(?i).*Q_PROJ")  # stands alone, so it may have one


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.config_class])
def test_every_method_refuses_text_where_it_wants_a_list(method):
    with pytest.raises(ConfigError, match="modules_to_save='lm_head' is text"):
        method_config(method, {"modules_to_save": "lm_head"})
    with pytest.raises(ConfigError, match=re.escape("target_modules: '(q_proj' is not a regular expression")):
        method_config(method, {"target_modules": "(q_proj"})


def test_lists_of_every_kind_shorthands_and_patterns_are_accepted():
    check_fields({"modules_to_save": ("lm_head",), "target_modules": {"q_proj"}, "exclude_modules": ["k_proj"]})
    check_fields({"layers_to_transform": 0, "layers_pattern": "h", "rank_pattern": {r"layers\.\d+\.q_proj": 4}})
    check_fields({"layers_to_transform": range(2), "trainable_token_indices": {"embed_tokens": [5]}})
    check_fields({"target_modules": "all-linear", "modules_to_save": None, "rank_pattern": {}, "layers_pattern": []})
    check_fields({"layers_to_transform": [1], "layers_pattern": ""})


def test_a_saved_configuration_is_read_back(tmp_path):
    given = MosloraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], layers_to_transform=[0])
    given.save_pretrained(str(tmp_path))
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["modules_to_save"] == ["lm_head"]
    assert MosloraConfig.from_pretrained(str(tmp_path)).modules_to_save == ["lm_head"]


def test_every_field_that_is_checked_is_one_of_a_configuration():
    known = {field.name for field in dataclasses.fields(MosloraConfig)}
    assert {*WRONG, *BAD_PATTERNS} <= known
