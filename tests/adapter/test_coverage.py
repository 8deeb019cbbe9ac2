"""Which weights of the base an adapter changes: layers, tied weights, trained parts, and experts."""

import pytest
import torch
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    GptOssConfig,
    MixtralConfig,
    OlmoeConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from moslora import MosloraConfig
from moslora.adapter.coverage import coverage, covered_layers, kinds
from moslora.adapter.experts import layers_replaced, plain_layers
from moslora.adapter.export import fold
from moslora.adapter.preparing import prepare, prepare_without_weights
from moslora.errors import UnsupportedLayerError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
DEEPSEEK = DeepseekV3Config(
    **SIZES | {"num_key_value_heads": 4},
    moe_intermediate_size=16,
    n_routed_experts=4,
    n_group=1,
    topk_group=1,
    num_experts_per_tok=2,
    first_k_dense_replace=1,
    q_lora_rank=8,
    kv_lora_rank=8,
    qk_rope_head_dim=4,
    qk_nope_head_dim=4,
    v_head_dim=8,
)
FAMILIES = {  # PEFT converts the targets of the first four for plain LoRA
    "mixtral": MixtralConfig(**SIZES, num_local_experts=4, head_dim=8),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2, head_dim=8),
    "olmoe": OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2),
    "deepseek_v3": DEEPSEEK,
    "qwen2_moe": Qwen2MoeConfig(**SIZES, moe_intermediate_size=16, num_experts=4, shared_expert_intermediate_size=24),
    "gpt_oss": GptOssConfig(**SIZES, num_local_experts=4, head_dim=8),
}
CONVERTED = ("mixtral", "qwen3_moe", "olmoe", "deepseek_v3")
EXPERTS = ["experts.down_proj", "experts.gate_up_proj"]


def on_meta(config, method, **options):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return prepare_without_weights(model, method, {"r": 4, **options})


def test_the_weights_of_a_plain_model_are_counted_by_hand(make_base, config):
    found = coverage(get_peft_model(make_base(), config(target_modules=["q_proj", "down_proj"])))
    block = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64
    assert found.numbers == 2 * block + 2 * 320 * 64
    assert found.adapted_numbers == 2 * (64 * 64 + 96 * 64)
    assert len(found.layers) == len(found.weights) == 16
    assert kinds(found.adapted) == ["down_proj", "q_proj"]
    assert found.bare_left_out == []
    assert {name.rpartition(".")[2] for name in found.changed} == {"weight"}


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "loha", "lokr", "vera", "pissa", "moslora-init-only"])
def test_every_method_covers_what_ours_does(make_base, method):
    targets = {"target_modules": ["q_proj", "down_proj"]}
    expected = coverage(prepare_without_weights(make_base().to("meta"), "moslora", targets))
    assert coverage(prepare_without_weights(make_base().to("meta"), method, targets)) == expected


def test_full_covers_every_weight(make_base):
    found = coverage(prepare(make_base(), "full", {}))
    assert found.adapted_numbers == found.numbers
    assert "model.norm.weight" in found.changed


def test_what_is_trained_beside_the_adapter_is_covered_too(make_base, config):
    base = make_base()
    base.model.layers[0].self_attn.q_proj.bias = torch.nn.Parameter(torch.zeros(64))
    found = coverage(get_peft_model(base, config(target_modules=["q_proj"], modules_to_save=["lm_head"], bias="all")))
    assert kinds(found.adapted) == ["lm_head", "q_proj"]
    assert "model.layers.0.self_attn.q_proj.bias" in found.changed
    assert found.adapted_numbers == 2 * 64 * 64 + 320 * 64
    tokens = coverage(get_peft_model(make_base(), config(target_modules=["q_proj"], trainable_token_indices=[5])))
    assert kinds(tokens.adapted) == ["q_proj"]  # a row of the embedding is not the embedding
    assert "model.embed_tokens.weight (some tokens)" in tokens.changed


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_a_tied_weight_counts_once_and_as_adapted_where_one_layer_is():
    tied = MixtralConfig(**SIZES, num_local_experts=4, head_dim=8, tie_word_embeddings=True)
    found = coverage(on_meta(tied, "moslora", target_modules=["lm_head"]))
    assert found.adapted_numbers == 64 * 32
    assert (
        found.numbers == coverage(on_meta(FAMILIES["mixtral"], "moslora", target_modules=["lm_head"])).numbers - 64 * 32
    )
    assert "embed_tokens" in kinds(weight for weight in found.weights if not weight.is_adapted)


@pytest.mark.parametrize("family", FAMILIES)
def test_experts_are_weights_that_no_list_of_layers_shows(family):
    ours = coverage(on_meta(FAMILIES[family], "moslora", target_modules="all-linear"))
    assert kinds(ours.experts_left_out) == EXPERTS
    assert any(kind.endswith(".weight") for kind in kinds(ours.bare_left_out))  # the router
    assert not any(weight.is_bare for weight in ours.adapted)
    lora = coverage(on_meta(FAMILIES[family], "lora", target_modules="all-linear"))
    assert (kinds(lora.experts_left_out) == []) == (family in CONVERTED)
    assert (lora.changed == ours.changed) == (family not in CONVERTED)


def test_the_layers_of_a_wrapped_parameter_are_counted_apart():
    rows = covered_layers(on_meta(FAMILIES["mixtral"], "lora", target_modules="all-linear"))
    sizes = {row["name"].removeprefix("model.layers.0."): row["parameters"] for row in rows}
    assert sizes["mlp.experts.down_proj"] == 4 * 4 * (48 + 32)
    assert sizes["mlp.experts.gate_up_proj"] == 2 * 4 * 4 * (32 + 96)  # two fused projections, so twice the rank
    assert sizes["mlp.gate.weight"] == 4 * (4 + 32)


def test_the_control_covers_what_the_mixer_it_starts_from_covers():
    ours = coverage(on_meta(FAMILIES["mixtral"], "moslora", target_modules="all-linear"))
    assert coverage(on_meta(FAMILIES["mixtral"], "moslora-init-only", target_modules="all-linear")) == ours
    trained = prepare(
        AutoModelForCausalLM.from_config(FAMILIES["mixtral"]), "moslora-init-only", {"target_modules": "all-linear"}
    )
    assert coverage(trained) == ours


def test_names_that_peft_takes_for_experts_cannot_be_folded_to():
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_config(DEEPSEEK), MosloraConfig(r=4, target_modules="all-linear"))
    with pytest.raises(UnsupportedLayerError, match="PEFT takes down_proj, gate_proj, up_proj in plain LoRA's target_"):
        fold(model)
    with pytest.raises(UnsupportedLayerError, match="for the experts of a deepseek_v3 model"):
        on_meta(DEEPSEEK, "moslora-init-only", target_modules=["gate_proj"])
    attention = MosloraConfig(r=4, target_modules=["o_proj"])
    fold(get_peft_model(AutoModelForCausalLM.from_config(DEEPSEEK), attention))


def test_layers_that_peft_leaves_out_for_the_experts_are_found():
    adapted = on_meta(DEEPSEEK, "lora", target_modules="all-linear")
    assert layers_replaced(coverage(adapted), adapted.peft_config["default"]) == ["down_proj", "gate_proj", "up_proj"]
    for family, options in (
        ("mixtral", {"target_modules": "all-linear"}),
        ("deepseek_v3", {"target_modules": ["o_proj"]}),
    ):
        adapted = on_meta(FAMILIES[family], "lora", **options)
        assert layers_replaced(coverage(adapted), adapted.peft_config["default"]) == []


@pytest.mark.parametrize("family", CONVERTED)
def test_plain_layers_are_targets_that_every_method_reads_alike(family):
    targets = plain_layers(AutoModelForCausalLM.from_config(FAMILIES[family]))
    ours = coverage(on_meta(FAMILIES[family], "moslora", target_modules=targets))
    assert coverage(on_meta(FAMILIES[family], "lora", target_modules=targets)) == ours
