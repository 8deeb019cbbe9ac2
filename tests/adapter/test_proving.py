"""An export is compared tensor by tensor: what a bfloat16 model's logits cannot see is refused all the same."""

import copy
import re

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import moslora.adapter.export as export
from moslora import MosloraConfig, save_folded, save_merged
from moslora.adapter.proving import prove_copy, prove_merge
from moslora.adapter.tensors import Comparison, TensorDrift
from moslora.core.folding import fold_into_a
from moslora.core.mixers import compose
from moslora.errors import DriftError


@pytest.fixture
def half(make_base, config, train):
    """A model with an adapter of little effect on a bfloat16 base, whose logits differ by far less than is allowed."""

    def make(**options):
        torch.manual_seed(7)
        return train(get_peft_model(make_base().bfloat16(), config(**options)), steps=2, rate=1e-3)

    return make


def only_at(number, change):
    """`fold_into_a` with another result at one of its calls."""
    calls = iter(range(10**6))
    return lambda a, mixer: change(a, mixer) if next(calls) == number else fold_into_a(a, mixer)


def in_autocast(a, mixer):
    return (mixer.bfloat16() @ a.bfloat16()).to(a.dtype)


WRONG_FOLDS = {
    "a layer folded to zero": lambda: only_at(3, lambda a, mixer: torch.zeros_like(a)),
    "a mixer dropped": lambda: only_at(3, lambda a, mixer: a),
    "a mixer transposed": lambda: only_at(3, lambda a, mixer: fold_into_a(a, mixer.T)),
    "scaled by 2 %": lambda: lambda a, mixer: fold_into_a(a, mixer) * 1.02,
    "scaled by 2 % in one layer": lambda: only_at(3, lambda a, mixer: fold_into_a(a, mixer) * 1.02),
    "multiplied in autocast's dtype": lambda: in_autocast,
}


@pytest.mark.parametrize("factors", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fault", WRONG_FOLDS)
def test_a_wrong_fold_is_refused_on_a_bfloat16_base(half, tmp_path, monkeypatch, fault, factors):
    model = half()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(factors)
    if fault == "multiplied in autocast's dtype" and factors == torch.bfloat16:
        return  # the same product: its factors are bfloat16 numbers, and it is rounded to that once
    for allow_drift in (False, True):
        monkeypatch.setattr(export, "fold_into_a", WRONG_FOLDS[fault]())
        with pytest.raises(DriftError, match=r"the folded adapter is not the adapter: .*proj: A has .* nothing was"):
            save_folded(model, tmp_path / "folded", allow_drift=allow_drift)
    assert list(tmp_path.iterdir()) == []


def test_a_right_fold_says_how_far_its_tensors_are(half, tmp_path):
    drift = save_folded(half(), tmp_path / "wide")
    assert drift.tensors.difference < 1e-6
    assert (drift.tensors.layers, drift.tensors.dtype) == (6, "float32")
    model = half()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.bfloat16()
    drift = save_folded(model, tmp_path / "narrow")
    assert 1e-4 < drift.tensors.difference < 2e-2
    assert (drift.tensors.layers, drift.tensors.dtype) == (6, "bfloat16")


def without(*parts):
    return lambda tensors: {k: t for k, t in tensors.items() if not any(part in k for part in parts)}


def changed(part, change):
    return lambda tensors: {k: change(t) if part in k else t for k, t in tensors.items()}


SAVED = {"modules_to_save": ["norm"], "bias": "lora_only", "use_dora": True}
WRONG_FILES = {
    "a layer is missing": (without("layers.1.self_attn.q_proj"), {}, "A has"),
    "a group of layers is missing": (without("down_proj"), {}, "A has"),
    "B is missing": (without("v_proj.lora_B"), {}, "B has"),
    "a tensor too many": (
        lambda t: t | {"base_model.model.x.lora_A.weight": torch.ones(1)},
        {},
        "also holds .*x.lora_A",
    ),
    "B is another": (changed("layers.0.self_attn.v_proj.lora_B", lambda t: t * 1.02), {}, "v_proj: B has"),
    "a saved module is missing": (without("model.norm"), SAVED, "does not load in plain PEFT .*model.norm.weight"),
    "a saved module is another": (changed("model.norm", lambda t: t + 1e-3), SAVED, "model.norm.weight has"),
    "magnitudes are missing": (
        without("q_proj.lora_magnitude_vector"),
        SAVED,
        "it lacks .*q_proj.lora_magnitude_vector",
    ),
    "a magnitude is another": (changed("magnitude_vector", lambda t: t * 1.001), SAVED, "lora_magnitude_vector has"),
    "a bias is missing": (without("v_proj.base_layer.bias"), SAVED, "it lacks .*v_proj.base_layer.bias"),
    "a bias is another": (changed("base_layer.bias", lambda t: t + 1e-3), SAVED, "base_layer.bias has"),
}


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("fault", WRONG_FILES)
def test_a_file_that_is_not_the_adapter_is_refused(tiny_llama, config, train, tmp_path, monkeypatch, fault):
    change, options, message = WRONG_FILES[fault]
    for layer in tiny_llama.model.layers:
        layer.self_attn.v_proj.bias = nn.Parameter(torch.zeros(layer.self_attn.v_proj.out_features))
    torch.manual_seed(7)
    model = train(get_peft_model(tiny_llama, config(**options)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(export, "save_file", lambda tensors, path, metadata: save_file(change(tensors), path, metadata))
    with pytest.raises(DriftError, match=f"the folded adapter (is not the adapter: )?.*{message}"):
        save_folded(model, tmp_path / "folded", allow_drift=True)
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_scale_that_the_config_does_not_say_is_refused(trained, tmp_path):
    model = trained()
    model.base_model.model.model.layers[1].mlp.down_proj.scale_layer(0.5)
    with pytest.raises(DriftError, match=r"layers.1.mlp.down_proj is scaled by 2 instead of 1 \(undo set_scale"):
        save_folded(model, tmp_path / "folded")


def test_loading_the_fold_writes_nothing_into_the_model(trained, tmp_path):
    model = trained(target_modules=["q_proj"], modules_to_save=["norm"], bias="all")
    versions = {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}
    save_folded(model, tmp_path / "folded")
    assert versions == {name: tensor._version for name, tensor in model.state_dict(keep_vars=True).items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("use_dora", [False, True])
def test_a_wrong_merge_is_refused_on_a_bfloat16_base(half, tmp_path, monkeypatch, dtype, use_dora):
    model = half(use_dora=use_dora, init_lora_weights=False)
    drift = save_merged(model, tmp_path / "right", dtype=dtype)
    assert (drift.tensors.layers, drift.tensors.dtype) == (6, str(dtype).removeprefix("torch."))
    layer = model.base_model.model.model.layers[1].self_attn.q_proj
    variant = type(layer.lora_variant["default"])
    right = variant.merge_safe

    def wrong(*arguments):
        module, _, weight = arguments[-3:]
        merged = right(*arguments)
        return weight + 1.02 * (merged - weight) if module.base_layer.weight is layer.base_layer.weight else merged

    monkeypatch.setattr(variant, "merge_safe", wrong if use_dora else staticmethod(wrong))
    with pytest.raises(
        DriftError, match=r"merged model is not the adapter: model.layers.1.self_attn.q_proj.weight has"
    ):
        save_merged(model, tmp_path / "wrong", dtype=dtype, allow_drift=True)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", "model.embed_tokens.weight"])
def test_a_merge_that_changes_another_weight_is_refused(half, tmp_path, monkeypatch, name):
    merge = export.merged_model

    def careless(model, **options):
        merged = merge(model, **options)
        parent, _, key = name.rpartition(".")
        weight = merged.get_parameter(name)
        setattr(merged.get_submodule(parent), key, nn.Parameter(weight * 1.02))
        return merged

    monkeypatch.setattr(export, "merged_model", careless)
    model = half(target_modules=["q_proj"], modules_to_save=["norm"], trainable_token_indices=[3, 5])
    with pytest.raises(DriftError, match=f"the merged model is not the adapter: {re.escape(name)} has"):
        save_merged(model, tmp_path / "merged", allow_drift=True)


def test_a_merge_with_a_wrong_bias_is_refused(config, tmp_path, monkeypatch):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=60, attention_bias=True, **sizes))
    for name, parameter in base.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    model = get_peft_model(base, config(target_modules=["q_proj"], lora_bias=True, init_lora_weights=False))
    nn.init.normal_(model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].bias)
    assert save_merged(model, tmp_path / "right").max_difference < 1e-5
    merge = export.merged_model

    def careless(model, **options):
        merged = merge(model, **options)
        merged.model.layers[0].self_attn.q_proj.bias.data[3] += 0.01
        return merged

    monkeypatch.setattr(export, "merged_model", careless)
    with pytest.raises(DriftError, match=r"model.layers.0.self_attn.q_proj.bias has"):
        save_merged(model, tmp_path / "wrong", allow_drift=True)


@pytest.mark.parametrize("depth", [1, 3])
def test_exports_are_exact_under_autocast(trained, tmp_path, depth):
    model = trained(mixer_depth=depth)
    with torch.autocast("cpu", torch.bfloat16):
        folded, merged = save_folded(model, tmp_path / "folded"), save_merged(model, tmp_path / "merged")
    assert folded.max_difference < 1e-5
    assert merged.max_difference < 1e-5
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    expected = layer.get_delta_weight("default")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.get_delta_weight("default"), expected)


def test_a_chain_in_bfloat16_is_multiplied_in_float32():
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(8, 8)), MosloraConfig(r=4, target_modules=["0"], mixer_depth=4))
    mixer = model.base_model.model[0].lora_mixer["default"].bfloat16()
    assert torch.equal(mixer.matrix(), compose(mixer.weight.float()))


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_a_number_may_differ_by_one_rounding_and_no_more(dtype, unit):
    right = torch.linspace(1, 2, 999, dtype=torch.float64)
    comparison = Comparison("the copy")
    comparison.check("t", right, right.to(dtype), path=(torch.float64, dtype))
    with pytest.raises(DriftError, match=r"the copy is not the adapter: t has .* where the adapter has"):
        comparison.check("t", right, right * (1 + 1.01 * unit), path=(torch.float64, dtype))
    with pytest.raises(DriftError, match="t has"):
        comparison.check("t", right.to(dtype), right.to(dtype) * (1 + 2 * unit), path=(dtype, dtype))
    with pytest.raises(DriftError, match="t has nan"):
        comparison.check("t", right, right * torch.nan, path=(torch.float64, dtype))
    with pytest.raises(DriftError, match=re.escape("t has shape (1,) instead of (999,)")):
        comparison.check("t", right, right[:1], path=(torch.float64, dtype))


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_a_number_that_is_too_small_is_refused_as_one_that_is_too_large(factor):
    right = torch.full((4,), 2.0)
    with pytest.raises(DriftError, match="a tensor"):
        Comparison("the copy").check("a tensor", right, right * factor, path=[torch.float32])


@pytest.mark.parametrize(("lacking", "said"), [(3, "it lacks x0, x1, x2;"), (4, "it lacks x0, x1, x2 and 1 more;")])
def test_of_many_names_that_are_missing_the_first_three_are_told(lacking: int, said: str):
    with pytest.raises(DriftError, match=said):
        Comparison("the folded adapter").same_names({f"x{number}" for number in range(lacking)}, set())


def test_without_an_adapted_layer_the_difference_is_nought():
    proof = Comparison("the folded adapter")
    proof.check("bias", torch.ones(2), torch.ones(2), path=[torch.float32])
    assert proof.result() == TensorDrift(0.0, 1, 0, "float64")


def test_the_number_that_is_told_is_the_worst_of_the_wrong_ones():
    expected, found = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 2.5, 5.0])
    with pytest.raises(DriftError, match="has 5 where the adapter has 3"):
        Comparison("the folded adapter").check("a", expected, found, path=[torch.float32, torch.float32])


def test_a_full_model_with_another_number_or_a_tensor_more_is_refused(trained):
    model = trained()
    merged = copy.deepcopy(model).merge_and_unload()
    written = dict(merged.state_dict())
    assert prove_merge(model, merged, adapter_name="default").layers == 6
    assert prove_copy(written, merged).compared == len(written)
    other = {name: tensor * 1.02 if name == "model.norm.weight" else tensor for name, tensor in written.items()}
    with pytest.raises(DriftError, match=r"model\.norm\.weight has"):
        prove_copy(other, merged)
    merged.extra = nn.Linear(2, 2, bias=False)
    for prove in (lambda: prove_merge(model, merged, adapter_name="default"), lambda: prove_copy(written, merged)):
        with pytest.raises(DriftError, match=r"also holds extra\.weight"):
            prove()
