"""What MosloraConfig accepts, and what it says about the rest."""

import re

import pytest

from moslora import MosloraConfig, MosloraError
from moslora.core.mixers import MIXERS


@pytest.mark.parametrize("mixer", [mixer for mixer in MIXERS if mixer != "zero"])
def test_every_mixer_is_accepted(mixer):
    assert MosloraConfig(mixer=mixer).mixer == mixer


def test_the_defaults_are_the_papers_for_text():
    config = MosloraConfig()
    assert (config.mixer, config.mixer_trainable, config.mixer_depth) == ("kaiming", True, 1)
    assert config.peft_type == "MOSLORA"
    assert config.peft_type.value == "MOSLORA"


def test_the_butterfly_is_fixed_unless_asked_otherwise():
    assert MosloraConfig(mixer="butterfly").mixer_trainable is False
    assert MosloraConfig(mixer="butterfly", mixer_trainable=True).mixer_trainable is True


def test_floras_start_is_accepted():
    assert MosloraConfig(mixer="zero", init_lora_weights=False).mixer == "zero"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "kaimming"}, "unknown mixer 'kaimming'; did you mean 'kaiming'? (allowed: butterfly, identity,"),
        ({"r": 0}, "r=0 is not a rank: give a whole number of at least 1"),
        ({"r": 2.5}, "r=2.5 is not a rank"),
        ({"rank_pattern": {"q_proj": -1}}, "rank_pattern['q_proj']=-1 is not a rank"),
        ({"mixer": "butterfly", "r": 7}, "r=7 is odd: the butterfly mixer joins two halves of the rank"),
        ({"mixer": "butterfly", "rank_pattern": {"v": 3}}, "rank_pattern['v']=3 is odd"),
        ({"mixer": "butterfly", "mixer_depth": 2}, "mixer_depth=2: the butterfly mixer has depth 1"),
        ({"mixer_pattern": {"v": "butterfly"}, "mixer_depth": 2}, "mixer_depth=2: the butterfly mixer has depth 1"),
        ({"mixer_pattern": {"v": "kaimming"}}, "unknown mixer_pattern['v']: mixer 'kaimming'; did you mean 'kaiming'?"),
        ({"mixer_pattern": {"v": "zero"}}, "mixer_pattern['v']='zero' never trains here: every gradient is exactly"),
        ({"mixer": "none"}, "unknown mixer 'none'"),
        (
            {"mixer": "zero", "init_lora_weights": False, "use_tucker": True, "mixer_pattern": {"v": "none"}},
            "use_tucker=True with mixer_pattern",
        ),
        ({"dropout_pattern": {"v": 1.0}}, "dropout_pattern['v']=1.0: give a share from 0 to below 1"),
        ({"dropout_pattern": {"v": True}}, "dropout_pattern['v']=True: give a share"),
        ({"mixer_depth": 0}, "mixer_depth=0: give a whole number of at least 1"),
        ({"mixer": "zero"}, "mixer='zero' never trains here: every gradient is exactly zero, since B starts at zero"),
        ({"mixer": "zero", "init_lora_weights": False, "mixer_depth": 2}, "each of the mixer_depth=2 links is zero"),
        ({"mixer": "zero", "init_lora_weights": False, "mixer_trainable": False}, "the mixer is not trained"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa' cannot be combined with a mixer"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora' cannot be combined"),
        ({"init_lora_weights": "orthogonal"}, "init_lora_weights='orthogonal' cannot be combined"),
        ({"target_parameters": ["experts.weight"]}, "target_parameters cannot be combined with a mixer"),
        ({"use_qalora": True}, "use_qalora cannot be combined with a mixer"),
        ({"layer_replication": [(0, 2)]}, "layer_replication cannot be combined with a mixer"),
        ({"velora_config": {}}, "velora_config cannot be combined with a mixer"),
        ({"alora_invocation_tokens": [1], "task_type": "CAUSAL_LM"}, "alora_invocation_tokens cannot be combined"),
    ],
)
def test_what_cannot_hold_is_refused_with_the_reason(options, message):
    with pytest.raises(MosloraError, match=re.escape(message)):
        MosloraConfig(**options)
