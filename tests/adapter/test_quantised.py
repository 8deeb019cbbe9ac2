"""bitsandbytes' 8- and 4-bit layers on the CPU, for real."""

import copy
import warnings

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from moslora import MosloraConfig, MosloraError, save_folded, save_merged
from moslora.adapter.layers import MixerLayer
from moslora.adapter.merging import merged_model

bnb = pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore:MatMul8bitLt", "ignore:Merge lora module", "ignore:Unmerge lora"
)
QUANTISATIONS = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture
def wide_folder(tiny_llama, tmp_path):
    """A base whose every weight is a whole number of quantisation blocks, as bitsandbytes' packing needs."""
    torch.manual_seed(0)
    wide = LlamaConfig(**tiny_llama.config.to_dict() | {"intermediate_size": 128})
    LlamaForCausalLM(wide).save_pretrained(tmp_path / "wide")
    return tmp_path / "wide"


@pytest.fixture(params=QUANTISATIONS)
def load_quantised(request, wide_folder):
    options = QUANTISATIONS[request.param]
    if "load_in_4bit" in options:
        options = {**options, "bnb_4bit_compute_dtype": torch.float32}

    def load():
        quantisation = BitsAndBytesConfig(**options)
        return LlamaForCausalLM.from_pretrained(
            wide_folder, quantization_config=quantisation, dtype=torch.float32
        ).eval()

    return load


def adapted(base, config, train, **options):
    torch.manual_seed(7)
    return train(
        get_peft_model(prepare_model_for_kbit_training(base, use_gradient_checkpointing=False), config(**options))
    )


@pytest.mark.parametrize("use_dora", [False, True])
def test_the_mixer_trains_saves_and_loads(load_quantised, config, train, logits, tmp_path, use_dora):
    if use_dora and getattr(load_quantised(), "is_loaded_in_8bit", False):
        with pytest.raises(MosloraError, match="use_dora=True does not work on Linear8bitLt layers"):
            get_peft_model(load_quantised(), config(use_dora=True))
        return
    model = adapted(load_quantised(), config, train, use_dora=use_dora)
    layers = [module for module in model.modules() if isinstance(module, MixerLayer)]
    assert {type(layer).__name__ for layer in layers} <= {"Linear4bit", "Linear8bitLt"}
    fresh = get_peft_model(load_quantised(), config(use_dora=use_dora))
    assert not torch.allclose(logits(model), logits(fresh), atol=1e-3)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(prepare_model_for_kbit_training(load_quantised()), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-3, atol=1e-3)


def test_evaluating_before_merging_changes_nothing(load_quantised, config, train, logits):
    """bitsandbytes repacks 4-bit weights at the first forward pass in evaluation mode, and merges read garbage then."""
    model = adapted(load_quantised(), config, train)
    untouched = copy.deepcopy(model)
    logits(model)
    logits(model)
    for one, two in zip(merged_parts(model), merged_parts(untouched), strict=True):
        assert torch.equal(one, two)
    model.merge_adapter()
    untouched.merge_adapter()
    torch.testing.assert_close(logits(model), logits(untouched), rtol=0, atol=0)


def merged_parts(model):
    return list(merged_model(model, dtype=torch.float32).parameters())


def test_a_base_that_ran_before_the_adapter_came_is_read_right(load_quantised, config, train, logits):
    clean, used = load_quantised(), load_quantised()
    logits(used)  # may repack the weights
    one = merged_parts(adapted(clean, config, lambda model: model))
    two = merged_parts(adapted(used, config, lambda model: model))
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, rtol=0.02, atol=1e-3)  # the packed scales were rounded to bfloat16


@pytest.mark.parametrize("kind", ["LinearNF4", "LinearFP4"])
def test_the_two_named_kinds_of_4_bit_carry_a_mixer_too(kind, tmp_path):
    torch.manual_seed(0)
    base = nn.Sequential(getattr(bnb.nn, kind)(64, 128, compute_dtype=torch.float32)).to("cpu")
    model = get_peft_model(base, MosloraConfig(r=4, target_modules=["0"], init_lora_weights=False)).eval()
    layer, x = model.base_model.model[0], torch.randn(3, 64)
    a, m, b = layer.lora_A["default"].weight, layer.mixer_matrix("default"), layer.lora_B["default"].weight
    torch.testing.assert_close(model(x), layer.base_layer(x) + layer.scaling["default"] * x @ (b @ m @ a).T)
    model(x).square().sum().backward()
    assert all(parameter.grad.any() for _, parameter in model.named_parameters() if parameter.requires_grad)
    torch.testing.assert_close(merged_model(model, dtype=torch.float32)(x), model(x), rtol=1e-4, atol=1e-4)
    save_folded(model, tmp_path / "folded", probe={"input": x})


@pytest.mark.parametrize("layer", [lambda: bnb.nn.OutlierAwareLinear(8, 8), lambda: bnb.nn.StableEmbedding(9, 8)])
def test_other_layers_of_bitsandbytes_are_refused_with_the_reason(layer):
    with pytest.raises(MosloraError, match=r"is not known to carry a mixer \(allowed: .*LinearNF4.*leave it out"):
        get_peft_model(nn.Sequential(layer()), MosloraConfig(target_modules=["0"]))


def test_fold_and_merge_are_verified(load_quantised, config, train, logits, tmp_path):
    model = adapted(load_quantised(), config, train)
    expected = logits(model)
    save_folded(model, tmp_path / "folded")
    with pytest.raises(
        MosloraError, match=r"the base model is quantised \(.*merging does not quantise again: choose the dtype"
    ):
        save_merged(model, tmp_path / "merged")
    drift = save_merged(model, tmp_path / "merged", dtype=torch.float32)
    merged = LlamaForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    assert type(merged.model.layers[0].self_attn.q_proj) is torch.nn.Linear
    assert drift.max_difference < 0.05 * drift.largest_output
    torch.testing.assert_close(logits(merged), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())


def test_merging_in_place_quantises_again_with_a_warning(load_quantised, config, train, logits):
    model = adapted(load_quantised(), config, train)
    expected = logits(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.merge_adapter()
    assert (logits(model) - expected).norm() < 0.2 * expected.norm()


def test_lora_bias_on_quantised_layers_is_refused(load_quantised, config):
    with pytest.raises(MosloraError, match=r"lora_bias=True does not work on Linear.* layers: PEFT merges their bias"):
        get_peft_model(load_quantised(), config(lora_bias=True))
