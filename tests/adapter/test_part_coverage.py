"""What is trained in each part of a model, in numbers counted by hand."""

import pytest
import torch
from transformers import BitsAndBytesConfig

from moslora.adapter.inspection import count_parameters
from moslora.adapter.part_coverage import coverage_by_part
from moslora.adapter.parts import expand
from moslora.adapter.preparing import prepare, prepare_without_weights
from moslora.adapter.projector import train_only
from moslora.errors import ConfigError

OPTIONS = {
    "parts": {
        "language": {
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.1,
            "mixer": "orthogonal",
            "target_modules": ["q_proj"],
        },
        "vision": {"r": 4, "lora_alpha": 4, "mixer": "none", "target_modules": ["q_proj", "fc1"]},
    },
    "projector": "trained",
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_each_part_is_counted(make_llava, parts, device):
    with torch.device(device):
        base = make_llava()
    make = prepare if device == "cpu" else prepare_without_weights
    model = make(base, "moslora", expand(OPTIONS, parts, base, method="moslora"))
    language, vision, projector = (row.to_dict() for row in coverage_by_part(model, parts))
    q = 2 * 8 * (32 + 32)
    mixers = 2 * 8 * 8
    assert language == {
        "part": "language",
        "layers": 2 * 7 + 2,  # the embedding and the head
        "adapted": 2,
        "quantised": 0,
        "ranks": [8],
        "alphas": [16],
        "dropouts": [0.1],
        "mixers": ["orthogonal"],
        "parameters": q + mixers,
        "mixer_parameters": mixers,
        "whole_parameters": 0,
        "trained_parameters": q + mixers,
    }
    vision_numbers = 2 * (4 * (32 + 32) + 4 * (32 + 48))
    assert (vision["layers"], vision["adapted"]) == (3 * 6 + 2, 4)  # patches and positions are layers too
    assert (vision["ranks"], vision["alphas"], vision["dropouts"], vision["mixers"]) == ([4], [4], [0.0], [])
    assert (vision["parameters"], vision["mixer_parameters"], vision["whole_parameters"]) == (vision_numbers, 0, 0)
    assert (projector["layers"], projector["adapted"], projector["parameters"]) == (2, 0, 0)
    assert projector["whole_parameters"] == projector["trained_parameters"] == 2 * (32 * 32 + 32)
    assert [row.is_trained_whole for row in coverage_by_part(model, parts)] == [False, False, True]
    total = sum(row.trained_parameters for row in coverage_by_part(model, parts))
    assert total == count_parameters(model)["trainable"]


def test_a_fixed_mixer_counts_and_is_not_trained(make_llava, parts):
    base = make_llava()
    options = {"parts": {"language": {"r": 4, "target_modules": ["q_proj"], "mixer": "butterfly"}}}
    model = prepare(base, "moslora", expand(options, parts, base, method="moslora"))
    language, vision, _ = coverage_by_part(model, parts)
    assert (language.mixers, language.mixer_parameters) == (("butterfly",), 2 * 16)
    assert language.trained_parameters == language.parameters - 2 * 16
    assert (vision.adapted, vision.parameters, vision.ranks) == (0, 0, ())


@pytest.mark.parametrize(("method", "alphas"), [("lora", (16,)), ("loha", (16,)), ("vera", ())])
def test_methods_of_peft_are_covered_too(make_llava, parts, method, alphas):
    base = make_llava()
    alpha = {} if method == "vera" else {"lora_alpha": 16}
    options = {"parts": {"language": {"r": 4, "target_modules": ["q_proj"], **alpha}}}
    language = coverage_by_part(prepare(base, method, expand(options, parts, base, method=method)), parts)[0]
    assert (language.adapted, language.ranks, language.alphas, language.mixers) == (2, (4,), alphas, ())
    assert language.parameters > 0


def test_a_projector_trained_alone_is_covered(make_llava, parts):
    base = make_llava()
    train_only(base, parts["projector"])
    language, vision, projector = coverage_by_part(base, parts)
    assert language.trained_parameters == vision.trained_parameters == 0
    assert projector.is_trained_whole
    assert projector.trained_parameters == 2 * (32 * 32 + 32)


@pytest.fixture
def in_4_bit(make_llava, tmp_path):
    """The model loaded with its linear layers in 4 bits, but for those that are named."""

    def load(kept):
        make_llava().save_pretrained(tmp_path / "base")
        quantisation = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=kept)
        return type(make_llava()).from_pretrained(tmp_path / "base", quantization_config=quantisation)

    return load


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_only_the_language_model_is_quantised_where_the_rest_is_named(in_4_bit, parts):
    base = in_4_bit(["model.vision_tower", "model.multi_modal_projector", "lm_head"])
    model = prepare(base, "moslora", expand(OPTIONS, parts, base, method="moslora"))
    rows = coverage_by_part(model, parts)
    assert [row.quantised for row in rows] == [2 * 7, 0, 0]
    assert [row.layers for row in rows] == [2 * 7 + 2, 3 * 6 + 2, 2]
    assert rows[2].trained_parameters == 2 * (32 * 32 + 32)


@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_a_quantised_projector_is_not_trained(in_4_bit, parts):
    base = in_4_bit(["lm_head"])
    assert [row.quantised for row in coverage_by_part(base, parts)] == [2 * 7, 3 * 6, 2]
    with pytest.raises(ConfigError, match=r"projector=trained: model\.multi_modal_projector is quantised"):
        expand(OPTIONS, parts, base, method="moslora")
    with pytest.raises(ConfigError, match=r"model\.multi_modal_projector is quantised and cannot be trained"):
        train_only(base, parts["projector"])
