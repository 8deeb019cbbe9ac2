"""An adapter that is not whole, or not of this base, is an error before its first output, on every loading path."""

import json
import re

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from moslora import MosloraConfig, MosloraError
from moslora.adapter.storage import load_adapter

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def saved(trained, tmp_path):
    folder = tmp_path / "adapter"
    trained().save_pretrained(folder)
    return folder


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS)


def through_peft(base, folder):
    return PeftModel.from_pretrained(base, folder)


def through_peft_lazily(base, folder):
    return PeftModel.from_pretrained(base, folder, low_cpu_mem_usage=True)


def through_a_second_adapter(base, folder):
    model = get_peft_model(base, MosloraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.load_adapter(folder, adapter_name="second")
    return model


def through_transformers(base, folder):
    base.load_adapter(str(folder))
    return base


def through_transformers_for_training(base, folder):
    base.load_adapter(str(folder), is_trainable=True)
    return base


def through_tensors(base, folder):
    base.load_adapter(
        adapter_state_dict=load_file(folder / WEIGHTS),
        peft_config=PeftConfig.from_pretrained(folder),
        is_trainable=True,
    )
    return base


def through_the_auto_class(base, folder):
    base.save_pretrained(folder)
    return type(base).from_pretrained(folder)


def as_diffusers_does(base, folder):
    inject_adapter_in_model(PeftConfig.from_pretrained(folder), base)
    set_peft_model_state_dict(base, load_file(folder / WEIGHTS))
    return base


def through_moslora(base, folder):
    return load_adapter(base, folder)


PATHS = [
    through_peft,
    through_peft_lazily,
    through_a_second_adapter,
    through_transformers,
    through_transformers_for_training,
    through_tensors,
    through_the_auto_class,
    as_diffusers_does,
    through_moslora,
]


@pytest.mark.parametrize("load", PATHS)
def test_a_whole_adapter_loads(saved, load_base, logits, trained, load):
    expected = logits(trained())
    model = load(load_base(), saved)
    if load is through_a_second_adapter:
        model.set_adapter("second")
    torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("load", PATHS)
@pytest.mark.parametrize(
    ("part", "cause"),
    [("lora_mixer", "it was probably saved by a program that dropped the mixer"), ("lora_B", "probably incomplete")],
)
def test_missing_tensors_are_refused(saved, load_base, load, part, cause):
    rewrite(saved, lambda tensors: {key: tensor for key, tensor in tensors.items() if part not in key})
    with pytest.raises(MosloraError, match=f"tensors are missing \\(.*{part}") as caught:
        load(load_base(), saved)
    assert cause in str(caught.value)


@pytest.mark.parametrize("load", PATHS)
def test_one_missing_mixer_is_named(saved, load_base, load):
    key = "base_model.model.model.layers.1.self_attn.v_proj.lora_mixer.weight"
    rewrite(saved, lambda tensors: {name: tensor for name, tensor in tensors.items() if name != key})
    with pytest.raises(MosloraError, match=r"1 tensors are missing \(.*layers\.1\.self_attn\.v_proj\.lora_mixer"):
        load(load_base(), saved)


@pytest.mark.parametrize("load", PATHS)
def test_wrong_shapes_are_refused(saved, load_base, load):
    rewrite(
        saved,
        lambda tensors: tensors | {key: t[:, :4, :4].contiguous() for key, t in tensors.items() if "mixer" in key},
    )
    with pytest.raises(MosloraError, match=r"do not fit \(.*lora_mixer.* has shape \(1, 4, 4\), the model \(1, 8, 8\)"):
        load(load_base(), saved)


@pytest.mark.parametrize("load", PATHS)
def test_a_wrong_rank_is_refused(saved, load_base, load):
    path = saved / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 4}))
    with pytest.raises(MosloraError, match="its rank or base model is probably different"):
        load(load_base(), saved)


@pytest.mark.parametrize("load", PATHS)
def test_unexpected_tensors_are_refused(saved, load_base, load):
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_AB.weight"
    rewrite(saved, lambda tensors: tensors | {key: torch.eye(8)})
    with pytest.raises(MosloraError, match=re.escape("unexpected")) as caught:
        load(load_base(), saved)
    assert "lora_AB" in str(caught.value)
    assert "convert it with `moslora import`" in str(caught.value)


@pytest.mark.parametrize("load", PATHS)
def test_another_base_of_the_same_layer_shapes_is_refused(saved, tiny_llama, load):
    from transformers import LlamaConfig, LlamaForCausalLM

    other = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_dict() | {"vocab_size": 321}))
    with pytest.raises(MosloraError, match="another base model: vocab_size 320 there, 321 here"):
        load(other, saved)


def test_another_name_of_the_base_is_no_error(saved, make_base):
    base = make_base()
    base.config._name_or_path = base.name_or_path = "somewhere/else"
    PeftModel.from_pretrained(base, saved)


def test_a_saved_config_can_start_a_fresh_adapter_when_told_so(saved, make_base, logits):
    config = PeftConfig.from_pretrained(saved)
    with pytest.raises(MosloraError, match="tensors are missing"):
        logits(get_peft_model(make_base(), config))
    config = PeftConfig.from_pretrained(saved)
    config.base_model_config = None
    logits(get_peft_model(make_base(), config))


def test_patterns_that_match_nothing_are_refused(make_base, config):
    cases = [
        (
            {"target_modules": ["q_proj", "v_porj"]},
            "target_modules: 'v_porj' matches no module of the model; did you mean 'v_proj'?",
        ),
        ({"rank_pattern": {"k_proj_x": 4}}, "rank_pattern: 'k_proj_x' matches no module"),
        ({"alpha_pattern": {"layers.7.q_proj": 4}}, "alpha_pattern: 'layers.7.q_proj' matches no module"),
        ({"exclude_modules": ["nothing"]}, "exclude_modules: 'nothing' matches no module"),
        (
            {"modules_to_save": ["lm_haed"]},
            "modules_to_save: 'lm_haed' matches no module of the model; did you mean 'lm_head'?",
        ),
    ]
    for options, message in cases:
        with pytest.raises(MosloraError, match=re.escape(message)):
            get_peft_model(make_base(), config(**options))
