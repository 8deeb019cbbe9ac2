"""Method names and their options."""

import re

import pytest
from peft import LoraConfig

from moslora import MosloraConfig, MosloraError
from moslora.adapter.methods import METHODS, method_config


def test_each_name_is_the_method_it_says():
    assert type(method_config("lora", {"r": 4})) is LoraConfig
    moslora = method_config("moslora", {"r": 4, "mixer": "orthogonal"})
    assert isinstance(moslora, MosloraConfig)
    assert (moslora.mixer, moslora.mixer_trainable, moslora.mixer_depth) == ("orthogonal", True, 1)
    mixing = method_config("ts-mixing", {"r": 4})
    assert (mixing.mixer, mixing.mixer_trainable) == ("butterfly", False)
    assert method_config("linchain", {}).mixer_depth == 3
    assert method_config("linchain", {"mixer_depth": 2}).mixer_depth == 2
    assert all(method_config(name, {}).task_type == "CAUSAL_LM" for name in METHODS)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "mos-lora",
            {},
            "unknown method 'mos-lora'; did you mean 'moslora'? (allowed: linchain, lora, moslora, ts-mixing)",
        ),
        ("moslora", {"rank": 4}, "unknown option of method 'moslora' in adapter: 'rank'"),
        ("moslora", {"lora_alhpa": 4}, "'lora_alhpa'; did you mean 'lora_alpha'?"),
        ("lora", {"mixer": "kaiming"}, "unknown option of method 'lora' in adapter: 'mixer'"),
        ("ts-mixing", {"mixer": "kaiming"}, "adapter.mixer is fixed for method 'ts-mixing' (butterfly): remove it"),
        ("ts-mixing", {"r": 5}, "r=5 is odd"),
        ("moslora", {"r": 0}, "r=0 is not a rank"),
        ("moslora", {"mixer": "none"}, "unknown mixer 'none'"),
        ("lora", {"target_modules": "x", "layers_to_transform": [1]}, "adapter: `layers_to_transform` cannot be used"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(method, options, message):
    with pytest.raises(MosloraError, match=re.escape(message)) as caught:
        method_config(method, options)
    assert "\n" not in str(caught.value)
