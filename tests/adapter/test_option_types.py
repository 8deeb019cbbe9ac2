"""Values of options that PEFT takes without a word, or that end in an error of torch's."""

from typing import Any

import pytest

from moslora.adapter.methods import method_config
from moslora.errors import ConfigError


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "moslora",
            {"bias": "lora_onl"},
            "adapter.bias='lora_onl': give one of none, all, lora_only; did you mean",
        ),
        ("moslora", {"use_dora": "maybe"}, "adapter.use_dora='maybe': give true or false"),
        ("moslora", {"lora_alpha": "32"}, "adapter.lora_alpha='32': give a number"),
        ("moslora", {"lora_alpha": 0}, "adapter.lora_alpha=0 scales every update to nothing"),
        ("moslora", {"lora_dropout": -0.1}, "adapter.lora_dropout=-0.1: give a share from 0 to below 1"),
        ("moslora", {"lora_dropout": float("nan")}, "adapter.lora_dropout=nan: give a number"),
        ("moslora", {"mixer": 3}, "adapter.mixer=3: give text"),
        ("lora", {"r": 4.5}, "adapter.r=4.5: give a whole number"),
        (
            "lora",
            {"rank_pattern": {"q_proj": "x"}},
            "adapter.rank_pattern: 'x' for 'q_proj': give a whole number of at",
        ),
        ("lora", {"alpha_pattern": {"q_proj": "x"}}, "adapter.alpha_pattern: 'x' for 'q_proj': give another number"),
        (
            "lora",
            {"init_lora_weights": "foo"},
            "adapter.init_lora_weights='foo': give true or false or one of gaussian",
        ),
        ("loha", {"lora_alpha": "x"}, "adapter.lora_alpha='x': give a number"),
    ],
)
def test_a_value_of_another_type_or_range_is_refused(method: str, options: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as caught:
        method_config(method, options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("moslora", {"lora_alpha": 16.5, "alpha_pattern": {"q_proj": 4}, "lora_dropout": 0, "bias": "all"}),
        ("pissa", {"init_lora_weights": "pissa_niter_4"}),
        ("lora", {"init_lora_weights": False, "layers_to_transform": [0]}),
        ("loha", {"lora_alpha": 8, "lora_dropout": 0.1}),
    ],
)
def test_values_that_peft_means_to_take_are_taken(method: str, options: dict[str, Any]):
    assert method_config(method, {"target_modules": ["q_proj"], **options})


def test_a_word_counts_by_its_letters():
    bias = "_".join(["lora", "only"])  # another object than the word in PEFT's own type
    assert method_config("moslora", {"target_modules": ["q_proj"], "bias": bias})
