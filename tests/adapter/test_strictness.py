"""What is given is what saving would write: every kind of tensor, on every path, and nothing else."""

import re

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from moslora import MosloraConfig, MosloraError

WEIGHTS = "adapter_model.safetensors"
BASE_KEY = "base_model.model.model.layers.0.self_attn.k_proj.weight"
OWN_KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"


def by_peft(base, folder, name):
    return PeftModel.from_pretrained(base, folder, adapter_name=name)


def by_transformers(base, folder, name):
    base.load_adapter(str(folder), adapter_name=name)
    return base


def by_diffusers(base, folder, name):
    inject_adapter_in_model(MosloraConfig.from_pretrained(folder), base, adapter_name=name)
    set_peft_model_state_dict(base, load_file(folder / WEIGHTS), adapter_name=name)
    return base


every_path = pytest.mark.parametrize("load", [by_peft, by_transformers, by_diffusers])


def make_llama(**options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        attention_bias=True, pad_token_id=0, **options,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def adapted(base, name="default", **options):
    """An adapter whose every tensor was moved, as training does."""
    torch.manual_seed(1)
    options = {"r": 4, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "init_lora_weights": False} | options
    model = get_peft_model(base, MosloraConfig(**options), adapter_name=name).eval()
    move(model)
    return model


def move(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))


def rewrite(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(tensors), folder / WEIGHTS)


@torch.no_grad()
def outputs(model):
    return model(input_ids=torch.arange(1, 15).view(2, 7)).logits


KINDS = {
    "saved module": ({"modules_to_save": ["lm_head"]}, "lm_head.weight"),
    "saved norms": ({"modules_to_save": ["norm"]}, "norm.weight"),
    "trained biases of its layers": ({"bias": "lora_only"}, "q_proj.base_layer.bias"),
    "trained biases": ({"bias": "all"}, "o_proj.bias"),
    "bias of its own": ({"lora_bias": True}, "lora_B.bias"),
    "magnitude": ({"use_dora": True}, "lora_magnitude_vector"),
    "trained tokens": ({"trainable_token_indices": [3, 5]}, "token_adapter.trainable_tokens_delta"),
    "mixer": ({"mixer_depth": 2}, "lora_mixer.weight"),
    "embedding's factor": ({"target_modules": ["embed_tokens"]}, "lora_embedding_A"),
}
every_kind = pytest.mark.parametrize(("options", "part"), KINDS.values(), ids=KINDS)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Setting `save_embedding_layers` to `True`", "ignore:Already found a `peft_config` attribute"
)


@every_path
@every_kind
def test_what_was_saved_loads(load, options, part, tmp_path):
    model = adapted(make_llama(), **options)
    model.save_pretrained(tmp_path)
    assert any(key.endswith(part) for key in load_file(tmp_path / WEIGHTS))
    for name in ("default", "another"):
        assert torch.equal(outputs(load(make_llama(), tmp_path, name)), outputs(model))


@every_path
@every_kind
def test_a_tensor_that_is_missing_is_named(load, options, part, tmp_path):
    adapted(make_llama(), **options).save_pretrained(tmp_path)
    first = min(key for key in load_file(tmp_path / WEIGHTS) if key.endswith(part))
    rewrite(tmp_path, lambda tensors: {key: tensor for key, tensor in tensors.items() if key != first})
    message = r"1 tensors are missing \(.*" + re.escape(first.removeprefix("base_model.model."))
    with pytest.raises(MosloraError, match=message):
        load(make_llama(), tmp_path, "default")


@every_path
@every_kind
def test_a_tensor_of_another_shape_is_refused(load, options, part, tmp_path):
    adapted(make_llama(), **options).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: {k: t[:1].clone() if k.endswith(part) else t for k, t in tensors.items()})
    with pytest.raises(MosloraError, match=r"do not fit \(.*" + re.escape(part) + r" has shape \(1") as caught:
        load(make_llama(), tmp_path, "default")
    assert "missing" not in str(caught.value)


@every_path
@pytest.mark.parametrize("key", [BASE_KEY, OWN_KEY, BASE_KEY.replace("k_proj", "q_proj.base_layer")])
def test_a_tensor_of_the_base_or_of_another_adapter_is_refused_and_changes_nothing(load, key, tmp_path):
    shape = (4, 32) if "lora_" in key else (32, 32)
    adapted(make_llama()).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {key: torch.zeros(shape)})
    base = make_llama()
    if load is by_peft:
        model = adapted(base)
        attempt = lambda: model.load_adapter(tmp_path, adapter_name="second")  # noqa: E731
    else:
        model = base
        model.add_adapter(MosloraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False), "default")
        attempt = lambda: load(model, tmp_path, "second")  # noqa: E731
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(MosloraError, match=r"1 tensors are unexpected \(.*belong to the base model or to another"):
        attempt()
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_two_tensors_for_one_weight_must_agree(tmp_path):
    adapted(make_llama(), modules_to_save=["lm_head"]).save_pretrained(tmp_path)
    again = "base_model.model.lm_head.modules_to_save.weight"
    rewrite(tmp_path, lambda tensors: tensors | {again: tensors["base_model.model.lm_head.weight"].clone()})
    PeftModel.from_pretrained(make_llama(), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors | {again: tensors[again] + 1})
    with pytest.raises(
        MosloraError, match=r"differs from another tensor that is given for .*lm_head\.modules_to_save\.default\.weight"
    ):
        PeftModel.from_pretrained(make_llama(), tmp_path)


@every_path
@pytest.mark.parametrize("bias", ["all", "lora_only", "none"])
def test_a_bias_named_without_the_adapter_is_understood(load, bias, tmp_path):
    def base():
        torch.manual_seed(0)
        config = BertConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, vocab_size=64
        )
        return BertForSequenceClassification(config).eval()

    model = adapted(base(), target_modules=["query"], task_type="SEQ_CLS", bias=bias)
    model.save_pretrained(tmp_path)
    saved, named = "base_model.model.classifier.bias", "base_model.model.classifier.modules_to_save.bias"
    assert (named in load_file(tmp_path / WEIGHTS)) == (bias == "all")
    rewrite(tmp_path, lambda tensors: {named if key == saved else key: tensor for key, tensor in tensors.items()})
    loaded = load(base(), tmp_path, "default")
    assert torch.equal(outputs(loaded), outputs(model))


@pytest.mark.filterwarnings("ignore:Adapter name 'lora' should not be contained", "ignore:.*adapter layers with bias")
@pytest.mark.parametrize("name", ["q_proj", "weight", "bias", "model", "base_layer", "mlp", "0", "lora_A"])
@pytest.mark.parametrize("options", [{"modules_to_save": ["lm_head"]}, {"bias": "lora_only"}], ids=str)
def test_adapters_called_as_modules_are_saved_and_loaded_apart(name, options, tmp_path):
    model = adapted(make_llama(), **options)
    torch.manual_seed(5)
    saved = {key: value for key, value in options.items() if key == "modules_to_save"}  # PEFT allows one with biases
    model.add_adapter(name, MosloraConfig(r=2, target_modules=["q_proj", "k_proj"], init_lora_weights=False, **saved))
    default = outputs(model)
    model.set_adapter(name)
    if saved:
        move(model)
    named = outputs(model)
    model.save_pretrained(tmp_path)
    for load in (by_peft, by_transformers):
        assert torch.equal(outputs(load(make_llama(), tmp_path, "default")), default)
        if saved:
            assert torch.equal(outputs(load(make_llama(), tmp_path / name, name)), named)
            assert torch.equal(outputs(load(make_llama(), tmp_path / name, "another")), named)
    both = PeftModel.from_pretrained(make_llama(), tmp_path)
    both.load_adapter(tmp_path / name, adapter_name=name)
    assert torch.equal(outputs(both), default)
    both.set_adapter(name)
    assert torch.equal(outputs(both), named)


def test_a_name_with_a_dot_is_refused():
    with pytest.raises(MosloraError, match=r"'default\.x' cannot name an adapter: leave out the dots"):
        adapted(make_llama(), name="default.x")


def test_biases_load_whether_or_not_another_adapter_wraps_their_layers(tmp_path):
    model = adapted(make_llama(), bias="all")
    model.save_pretrained(tmp_path / "alone")
    model.add_adapter("other", MosloraConfig(r=2, target_modules=["k_proj"]))
    model.save_pretrained(tmp_path / "beside", selected_adapters=["default"])
    for folder in ("alone", "beside"):
        for load in (by_peft, by_transformers):
            assert torch.equal(outputs(load(make_llama(), tmp_path / folder, "default")), outputs(model))
        beside = adapted(make_llama(), "other", target_modules=["k_proj"])
        beside.load_adapter(tmp_path / folder, adapter_name="default")
        beside.set_adapter("default")
        assert torch.equal(outputs(beside), outputs(model))
