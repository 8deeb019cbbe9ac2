"""One adapter whose layers differ in rank, alpha, mixer and dropout."""

import json
import re

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn

from moslora import MosloraConfig, save_folded, save_merged
from moslora.adapter.coverage import covered_layers
from moslora.adapter.export import fold, plain_config
from moslora.adapter.inspection import inspect_adapter
from moslora.adapter.layers import mixer_layers
from moslora.adapter.methods import method_config
from moslora.adapter.pictures import mixers_of
from moslora.adapter.preparing import prepare
from moslora.errors import ConfigError

PATTERNS = {
    "rank_pattern": {"v_proj": 4},
    "alpha_pattern": {"v_proj": 2},
    "mixer": "orthogonal",
    "mixer_pattern": {"v_proj": "none", r"layers\.1\.mlp\.down_proj": "butterfly"},
    "dropout_pattern": {"down_proj": 0.25},
    "lora_dropout": 0.5,
}


def by_kind(model, kind):
    return [layer for name, layer in mixer_layers(model).items() if name.endswith(kind)]


@pytest.fixture
def mixed(trained):
    return trained(**PATTERNS)


def test_each_layer_gets_what_its_pattern_says(mixed):
    q, v, down = (by_kind(mixed, kind) for kind in ("q_proj", "v_proj", "down_proj"))
    assert [layer.lora_dropout["default"].p for layer in (*q, *v, *down)] == [0.5] * 4 + [0.25] * 2
    assert all("default" in layer.lora_mixer for layer in (*q, *down))
    assert all("default" not in layer.lora_mixer and layer.mixer_matrix("default") is None for layer in v)
    butterfly = down[1].lora_mixer["default"].weight
    assert torch.equal(butterfly[0], torch.eye(4).repeat(2, 2))  # trained, and not moved: it is fixed
    assert not butterfly.requires_grad
    assert down[0].lora_mixer["default"].weight.requires_grad
    assert [row["mixer_parameters"] for row in covered_layers(mixed)] == [64, 0, 64] * 2
    assert len(mixers_of(mixed)) == 4
    assert [report.mixer_condition is None for report in inspect_adapter(mixed)] == [False, True, False] * 2


def test_no_dropout_at_a_pattern_is_none(make_base, config):
    model = get_peft_model(make_base(), config(lora_dropout=0.5, dropout_pattern={"q_proj": 0}))
    assert all(isinstance(layer.lora_dropout["default"], nn.Identity) for layer in by_kind(model, "q_proj"))


def test_no_mixer_is_lora_exactly(trained, make_base, logits):
    model = trained(mixer_pattern={"q_proj|v_proj|down_proj": "none"})
    assert not any("lora_mixer" in key for key in fold(model)[1])
    twin = get_peft_model(make_base(), plain_config(model.peft_config["default"]))
    twin.load_state_dict(model.state_dict())
    assert torch.equal(logits(model), logits(twin))
    assert (logits(model) - logits(make_base())).abs().max() > 0.01


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=str)
def test_it_saves_loads_folds_and_merges(trained, make_base, logits, tmp_path, options):
    model = trained(**PATTERNS, **options)
    expected = logits(model)
    model.save_pretrained(str(tmp_path / "adapter"))
    assert torch.equal(logits(PeftModel.from_pretrained(make_base(), str(tmp_path / "adapter"))), expected)
    save_folded(model, tmp_path / "folded")
    assert torch.allclose(
        logits(PeftModel.from_pretrained(make_base(), str(tmp_path / "folded"))), expected, atol=1e-5, rtol=0
    )
    save_merged(model, tmp_path / "merged")
    model.merge_adapter()
    assert torch.allclose(logits(model), expected, atol=1e-5, rtol=0)
    model.unmerge_adapter()
    assert torch.allclose(logits(model), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", ["embed_tokens", "q_proj"])
def test_dora_without_a_mixer_is_pefts(make_base, config, train, logits, target):
    torch.manual_seed(3)
    options = {"target_modules": [target], "use_dora": True, "mixer_pattern": {target: "none"}}
    model = train(get_peft_model(make_base(), config(**options)))
    twin = get_peft_model(make_base(), plain_config(model.peft_config["default"]))
    twin.load_state_dict(model.state_dict())
    assert torch.allclose(logits(model), logits(twin), atol=1e-6, rtol=0)
    assert (logits(model) - logits(make_base())).abs().max() > 0.01


def test_the_configuration_is_read_back_with_its_patterns(tmp_path, mixed):
    mixed.save_pretrained(str(tmp_path))
    loaded = MosloraConfig.from_pretrained(str(tmp_path))
    assert (loaded.mixer_pattern, loaded.dropout_pattern) == (PATTERNS["mixer_pattern"], PATTERNS["dropout_pattern"])
    assert loaded.mixer_trainable is None  # each kind of mixer still has its own default


def test_a_configuration_of_an_older_version_is_read(tmp_path, config):
    config().save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    fields = json.loads(path.read_text())
    for field in ("mixer_pattern", "dropout_pattern"):
        del fields[field]
    path.write_text(json.dumps(fields))
    loaded = MosloraConfig.from_pretrained(str(tmp_path))
    assert (loaded.mixer_pattern, loaded.dropout_pattern, loaded.mixer_trainable) == ({}, {}, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer_pattern": {"q_porj": "identity"}}, "mixer_pattern: 'q_porj' matches no module of the model"),
        ({"dropout_pattern": {"q_porj": 0.1}}, "dropout_pattern: 'q_porj' matches no module of the model"),
        ({"dropout_pattern": {"k_proj": 0.1}}, "dropout_pattern: 'k_proj' matches none of the adapted layers (model."),
        (
            {"mixer_pattern": {"v_proj": "butterfly"}, "rank_pattern": {"v_proj": 3}},
            "model.layers.0.self_attn.v_proj has rank 3, which is odd: the butterfly mixer",
        ),
    ],
)
def test_a_pattern_that_does_not_fit_the_model_is_refused(make_base, config, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_peft_model(make_base(), config(**options))


def test_an_odd_rank_away_from_the_butterfly_is_accepted(make_base, config):
    options = {"mixer": "butterfly", "mixer_pattern": {"v_proj": "none"}, "rank_pattern": {"v_proj": 3}}
    model = get_peft_model(make_base(), config(**options))
    assert {layer.r["default"] for layer in by_kind(model, "v_proj")} == {3}


def test_the_folded_start_keeps_the_layers_without_a_mixer(make_base):
    torch.manual_seed(1)
    options = {"r": 4, "target_modules": ["q_proj", "v_proj"], "mixer_pattern": {"v_proj": "none"}}
    assert prepare(make_base(), "moslora-init-only", options)
    with pytest.raises(ConfigError, match="dropout_pattern is fixed for method 'moslora-init-only'"):
        method_config("moslora-init-only", {"dropout_pattern": {"q_proj": 0.1}})


def test_what_is_said_of_training_the_mixer_holds_for_every_kind(make_base, config):
    patterns = {"q_proj": "butterfly", "v_proj": "none"}
    for wanted, expected in ((None, {"q_proj": False, "down_proj": True}), (True, True), (False, False)):
        model = get_peft_model(make_base(), config(mixer_pattern=patterns, mixer_trainable=wanted))
        for kind in ("q_proj", "down_proj"):
            trained = {layer.lora_mixer["default"].weight.requires_grad for layer in by_kind(model, kind)}
            assert trained == {expected[kind] if isinstance(expected, dict) else expected}


def test_a_weighted_combination_takes_layers_with_and_without_a_mixer(mixed, config, train):
    mixed.add_adapter("second", config(**PATTERNS))
    mixed.set_adapter("second")
    train(mixed)
    deltas = {
        name: 2 * layer.get_delta_weight("default") - layer.get_delta_weight("second")
        for name, layer in mixer_layers(mixed).items()
    }
    mixed.add_weighted_adapter(["default", "second"], [2.0, -1.0], "both", combination_type="cat")
    for name, layer in mixer_layers(mixed).items():
        assert torch.allclose(layer.get_delta_weight("both"), deltas[name], atol=1e-6, rtol=0)
    assert mixed.peft_config["default"].mixer_pattern == PATTERNS["mixer_pattern"]
    assert mixed.peft_config["both"].mixer_pattern == {}
