"""One adapter for a model of a language model, a vision encoder and a projector."""

import json
import re

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    VipLlavaConfig,
    VipLlavaForConditionalGeneration,
)

from moslora import save_folded, save_merged
from moslora.adapter.inspection import count_parameters
from moslora.adapter.layers import mixer_layers
from moslora.adapter.methods import method_config
from moslora.adapter.part_layers import dead_modules, exact_pattern
from moslora.adapter.parts import check_by_part, expand, options_for, projector_choice
from moslora.adapter.preparing import prepare, prepare_without_weights
from moslora.errors import ConfigError

LANGUAGE = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": ["q_proj", "down_proj"]}
VISION = {"r": 4, "lora_alpha": 4, "lora_dropout": 0, "target_modules": ["q_proj", "fc1"]}
BOTH = {"parts": {"language": LANGUAGE, "vision": VISION}}
MIXED = {"parts": {"language": {**LANGUAGE, "mixer": "orthogonal"}, "vision": {**VISION, "mixer": "none"}}}


def adapted(model):
    return [name for name, layer in model.get_base_model().named_modules() if hasattr(layer, "base_layer")]


@pytest.fixture
def prepared(make_llava, parts):
    def make(options, method="moslora"):
        base = make_llava()
        torch.manual_seed(1)
        return prepare(base, method, expand(options, parts, base, method=method))

    return make


@pytest.fixture
def train_on(pictured):
    def run(model, steps=3):
        batch = pictured()
        optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
        model.train()
        for _ in range(steps):
            model(**batch, labels=batch["input_ids"]).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return model.eval()

    return run


def outputs(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_each_part_gets_its_own_rank_alpha_dropout_and_mixer(prepared):
    layers = mixer_layers(prepared(MIXED).get_base_model())
    for name, layer in layers.items():
        is_vision = "vision" in name
        assert (layer.r["default"], layer.lora_alpha["default"]) == ((4, 4) if is_vision else (8, 16))
        assert getattr(layer.lora_dropout["default"], "p", 0) == (0 if is_vision else 0.1)
        assert ("default" in layer.lora_mixer) is not is_vision
    assert len(layers) == 2 * 2 + 2 * 2  # the third vision layer is dead


def test_the_configuration_stays_readable(make_llava, parts):
    expanded = expand(MIXED, parts, make_llava(), method="moslora")
    assert expanded == {
        "target_modules": r"model\.vision_tower\.encoder\.layers\.(?:0|1)\.(?:self_attn\.q_proj|mlp\.fc1)"
        r"|model\.language_model\.layers\.\d+\.(?:self_attn\.q_proj|mlp\.down_proj)",
        "r": 8,
        "rank_pattern": {r"^model\.vision_tower\..*": 4},
        "lora_alpha": 16,
        "alpha_pattern": {r"^model\.vision_tower\..*": 4},
        "lora_dropout": 0.1,
        "dropout_pattern": {r"^model\.vision_tower\..*": 0},
        "mixer": "orthogonal",
        "mixer_pattern": {r"^model\.vision_tower\..*": "none"},
    }


def test_one_name_for_the_language_model_reaches_no_vision_layer(prepared):
    model = prepared({"parts": {"language": {"target_modules": ["q_proj"]}}})
    assert adapted(model) == [f"model.language_model.layers.{n}.self_attn.q_proj" for n in range(2)]


def test_the_language_model_without_a_mixer_leaves_the_vision_part_its_own(prepared):
    options = {"parts": {"language": {**LANGUAGE, "mixer": "none"}, "vision": {**VISION, "mixer": "identity"}}}
    for name, layer in mixer_layers(prepared(options).get_base_model()).items():
        assert ("default" in layer.lora_mixer) is ("vision" in name)
        assert layer.r["default"] == (4 if "vision" in name else 8)


def test_the_parameters_are_those_counted_by_hand(prepared):
    q_and_down = 2 * (8 * (32 + 32) + 8 * (48 + 32))  # rank 8, two layers
    q_and_fc1 = 2 * (4 * (32 + 32) + 4 * (32 + 48))  # rank 4, two of three layers
    mixers = 2 * 2 * 8 * 8
    projector = 2 * (32 * 32 + 32)
    assert count_parameters(prepared(MIXED))["trainable"] == q_and_down + q_and_fc1 + mixers
    assert count_parameters(prepared({**MIXED, "projector": "trained"}))["trainable"] == (
        q_and_down + q_and_fc1 + mixers + projector
    )


@pytest.mark.parametrize(("tower", "per_layer"), [("clip", 6), ("siglip", 6), ("dinov2", 6)])
def test_all_linear_is_all_of_a_parts_layers_and_nothing_else(make_llava, parts, tower, per_layer):
    base = make_llava(tower)
    options = expand(
        {"parts": {"language": {}, "vision": {"target_modules": "all-linear"}}}, parts, base, method="lora"
    )
    names = adapted(prepare(base, "lora", options))
    assert sum(".language_model." in name for name in names) == 2 * 7
    assert sum(".vision_tower." in name for name in names) == 2 * per_layer
    assert len(names) == 2 * 7 + 2 * per_layer  # not the head, not the projector, not the last vision layer


@pytest.mark.parametrize(
    ("layer", "dead"),
    [(-2, [2]), (-1, []), (1, [1, 2]), ([0, -3], [1, 2]), ([1, -1], [])],
)
def test_layers_behind_the_chosen_features_are_dead(make_llava, parts, layer, dead):
    assert dead_modules(make_llava(vision_feature_layer=layer), parts) == [
        f"model.vision_tower.encoder.layers.{number}" for number in dead
    ]


def test_the_pooling_head_of_a_siglip_tower_is_dead(make_llava, parts):
    assert dead_modules(make_llava("siglip"), parts) == [
        "model.vision_tower.encoder.layers.2",
        "model.vision_tower.head",
    ]
    assert dead_modules(make_llava("dinov2"), parts) == ["model.vision_tower.encoder.layer.2"]


def test_the_layers_are_found_in_models_like_llava(make_llava, parts):
    own = make_llava().config
    settings = {"vision_config": own.vision_config, "text_config": own.text_config}
    with torch.device("meta"):
        tiles = LlavaNextForConditionalGeneration(LlavaNextConfig(**settings))
        several = VipLlavaForConditionalGeneration(VipLlavaConfig(**settings, vision_feature_layers=[-3, 1]))
    assert dead_modules(tiles, parts) == ["model.vision_tower.encoder.layers.2"]
    assert dead_modules(several, parts) == [f"model.vision_tower.encoder.layers.{number}" for number in (1, 2)]


def test_a_model_of_one_part_has_no_dead_layers(tiny_llama):
    assert dead_modules(tiny_llama, {}) == []


@pytest.mark.parametrize("method", ["lora", "dora", "moslora", "moslora+dora", "linchain", "rslora", "loha"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_methods_of_peft_and_of_ours_take_the_options(make_llava, parts, method, device):
    with torch.device(device):
        base = make_llava()
    same_dropout = {part: {**own, "lora_dropout": 0} for part, own in BOTH["parts"].items()}
    options = expand({"parts": same_dropout, "projector": "trained"}, parts, base, method=method)
    make = prepare if device == "cpu" else prepare_without_weights
    model = make(base, method, options)
    ranks = {name: layer.r["default"] for name, layer in model.get_base_model().named_modules() if hasattr(layer, "r")}
    assert {rank for name, rank in ranks.items() if "vision" in name} == {4}
    assert {rank for name, rank in ranks.items() if "vision" not in name} == {8}
    trained = [name for name, p in model.named_parameters() if p.requires_grad and "projector" in name]
    assert len(trained) == 4


def test_it_is_loaded_folded_and_merged_with_its_projector(prepared, train_on, make_llava, pictured, tmp_path):
    model = train_on(prepared({**MIXED, "projector": "trained"}))
    batch = pictured()
    expected = outputs(model, batch)
    assert (expected - outputs(make_llava(), batch)).abs().max() > 0.01
    model.save_pretrained(str(tmp_path / "adapter"))
    saved = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert saved["modules_to_save"] == ["model.multi_modal_projector"]
    loaded = PeftModel.from_pretrained(make_llava(), str(tmp_path / "adapter"))
    assert torch.equal(outputs(loaded, batch), expected)
    save_folded(model, tmp_path / "folded", probe=batch)
    folded = PeftModel.from_pretrained(make_llava(), str(tmp_path / "folded"))
    assert type(folded.peft_config["default"]).__name__ == "LoraConfig"
    assert torch.allclose(outputs(folded, batch), expected, atol=1e-5, rtol=0)
    save_merged(model, tmp_path / "merged", probe=batch)
    merged = type(make_llava()).from_pretrained(tmp_path / "merged")
    assert torch.allclose(outputs(merged, batch), expected, atol=1e-5, rtol=0)


def test_the_projector_trains_beside_the_adapter_and_is_frozen_by_default(prepared):
    def trained(model):
        return {name for name, p in model.named_parameters() if p.requires_grad and "multi_modal_projector" in name}

    assert not trained(prepared(BOTH))
    assert not trained(prepared({**BOTH, "projector": "frozen"}))
    assert len(trained(prepared({**BOTH, "projector": "trained"}))) == 4


def test_finer_patterns_given_beside_the_parts_come_first(make_llava, parts):
    own = {"rank_pattern": {r"vision_tower\..*\.fc1": 2}, **BOTH}
    base = make_llava()
    model = prepare(base, "moslora", expand(own, parts, base, method="moslora"))
    ranks = {name: layer.r["default"] for name, layer in mixer_layers(model.get_base_model()).items()}
    assert {rank for name, rank in ranks.items() if name.endswith("fc1")} == {2}
    assert {rank for name, rank in ranks.items() if "vision" in name and name.endswith("q_proj")} == {4}


def test_values_beside_the_parts_hold_for_all_of_them(make_llava, parts):
    options = {"r": 16, "parts": {"language": {}, "vision": {"r": 2}}, "use_rslora": True}
    expanded = expand(options, parts, make_llava(), method="lora")
    assert (expanded["r"], expanded["rank_pattern"]) == (16, {r"^model\.vision_tower\..*": 2})
    assert expanded["use_rslora"] is True
    assert "lora_alpha" not in expanded


def test_parts_that_do_not_differ_need_no_patterns(make_llava, parts):
    both = {"language": {"r": 8, "target_modules": ["q_proj"]}, "vision": {"target_modules": ["q_proj"]}}
    expanded = expand({"parts": both}, parts, make_llava(), method="lora")  # 8 is PEFT's default
    assert set(expanded) == {"target_modules", "r"}


def test_ts_mixing_may_leave_a_part_without_its_mixer(prepared):
    options = {"parts": {"language": LANGUAGE, "vision": {**VISION, "mixer": "none"}}}
    for name, layer in mixer_layers(prepared(options, "ts-mixing").get_base_model()).items():
        assert ("default" in layer.lora_mixer) is ("vision" not in name)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "moslora",
            {"target_modules": ["q_proj"]},
            "adapter.target_modules=['q_proj'] reaches more than one part of the model (language, vision): say what"
            " each part gets, parts: {language: {target_modules: all-linear}, vision: {target_modules: all-linear}}",
        ),
        ("lora", {"target_modules": "all-linear"}, "reaches more than one part of the model (language, vision, proj"),
        ("lora", {}, "adapter.target_modules=None reaches more than one part"),
        (
            "moslora",
            {"parts": {"vison": {}}},
            "unknown part in adapter.parts: 'vison'; did you mean 'vision'? (allowed: language, vision)",
        ),
        ("moslora", {"parts": {"projector": {}}}, "adapter.parts.projector: it carries no adapter; set projector:"),
        ("moslora", {"parts": {}}, "adapter.parts={}: give a mapping from parts (language, vision) to their options"),
        ("moslora", {"parts": {"vision": None}}, "adapter.parts.vision=None: give a mapping of options"),
        (
            "moslora",
            {"parts": {"vision": {"target_modules": ["o_proj"]}}},
            "adapter.parts.vision.target_modules: 'o_proj' matches no module of vision (model.vision_tower); did you"
            " mean 'out_proj'?",
        ),
        (
            "moslora",
            {"parts": {"vision": {"target_modules": ["layers.2.mlp.fc1"]}}},
            "'layers.2.mlp.fc1' matches only layers that are never trained (model.vision_tower.encoder.layers.2.mlp.",
        ),
        ("moslora", {"parts": {"vision": {"target_modules": "q_proj"}}}, "give a list of names, ['q_proj'], or all-"),
        (
            "moslora",
            {"parts": {"vision": {"use_dora": True}}},
            "adapter.parts.vision.use_dora cannot differ by part: put it beside parts (a part may have target_modules,",
        ),
        (
            "lora",
            {"r": 16, "parts": {"language": {"r": 8}, "vision": {"r": 4}}},
            "adapter.r=16 would do nothing, since each part has its own: change those (adapter.parts.language.r), or",
        ),
        ("moslora", {"parts": {"vision": {"rank": 4}}}, "unknown option in adapter.parts.vision: 'rank'"),
        (
            "moslora",
            {"parts": {"vision": {}}, "target_modules": ["fc1"]},
            "target_modules is given beside parts: move it",
        ),
        (
            "lora",
            {"parts": {"vision": {}}, "layers_to_transform": [0]},
            "layers_to_transform does not say which part it means",
        ),
        ("lora", {"parts": {"vision": {"mixer": "none"}}}, "vision.mixer: method 'lora' has no such option; remove it"),
        ("flora", {"parts": {"vision": {"mixer": "none"}}}, "vision.mixer: method 'flora' has no such option"),
        (
            "moslora",
            {"parts": {"vision": {"mixer": "none"}}},
            "adapter.parts: no part has a mixer; choose method: lora",
        ),
        ("lora", BOTH, "lora_dropout differs by part (language: 0.1, vision: 0), and method 'lora' has no dropout_"),
        (
            "adalora",
            {"parts": {"language": {"r": 8}, "vision": {"r": 4}}},
            "r differs by part (language: 8, vision: 4)",
        ),
        ("adalora", {"parts": {"language": {"lora_alpha": 8}, "vision": {"lora_alpha": 4}}}, "has no alpha_pattern"),
        ("moslora", {"projector": "train"}, "unknown adapter.projector: 'train'; did you mean 'trained'?"),
        ("moslora", {"projector": "only", "r": 8}, "adapter.projector=only trains no adapter, so r would do nothing"),
        ("full", {"projector": "trained"}, "method 'full' trains all weights of every part: remove projector"),
    ],
)
def test_what_does_not_fit_the_parts_is_refused(make_llava, parts, method, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        expand(options, parts, make_llava(), method=method)


def test_names_that_reach_one_part_need_no_parts(make_llava, parts):
    options = {"target_modules": ["gate_proj"], "r": 4}
    assert expand(options, parts, make_llava(), method="moslora") == options


def test_a_model_of_one_part_takes_its_options_as_they_are(tiny_llama):
    options = {"target_modules": ["q_proj"], "r": 4}
    assert expand(options, {}, tiny_llama, method="moslora") == options
    with pytest.raises(ConfigError, match="this model is one part; write the options without parts"):
        expand({"parts": {"language": {}}}, {}, tiny_llama, method="moslora")
    with pytest.raises(ConfigError, match="the model has no projector; remove it"):
        expand({"projector": "trained"}, {}, tiny_llama, method="moslora")


def test_only_the_projector_leaves_nothing_to_adapt(make_llava, parts):
    assert expand({"projector": "only"}, parts, make_llava(), method="moslora") == {}
    assert projector_choice({"projector": "only"}) == "only"
    assert projector_choice({}) == "frozen"


def test_a_second_module_whose_name_ends_like_the_projectors_is_not_trained_silently(make_llava, parts):
    base = make_llava()
    base.register_module("old_model", torch.nn.ModuleDict({"multi_modal_projector": torch.nn.Linear(2, 2)}))
    with pytest.raises(ConfigError, match=r"would train old_model\.multi_modal_projector too"):
        expand({**BOTH, "projector": "trained"}, parts, base, method="moslora")


@pytest.mark.parametrize(
    "chosen", [["a.0.x", "a.1.x"], ["a.0.x", "b"], ["a.2.y"], ["a.0.x", "a.0.y", "a.2.y"], ["ab0cx"]]
)
def test_a_pattern_matches_what_it_is_made_of_and_nothing_else(chosen):
    names = ["a", "a.0", "a.0.x", "a.0.y", "a.1.x", "a.2.y", "a.10.x.3.z", "b", "b.0.x", "ab0cx", "c.a.0.x"]
    pattern = exact_pattern(chosen, names)
    assert [name for name in names if re.fullmatch(pattern, name)] == chosen


def test_the_expanded_options_are_a_configuration(make_llava, parts):
    config = method_config("moslora", expand(BOTH, parts, make_llava(), method="moslora"))
    assert get_peft_model(make_llava(), config).peft_config["default"].r == 8


def test_another_method_gets_the_options_it_has(make_llava, parts):
    given = {**MIXED, "projector": "trained", "mixer_depth": 1}
    kept = options_for("lora", given)
    assert kept == {"parts": {"language": LANGUAGE, "vision": VISION}, "projector": "trained"}
    assert options_for("ts-mixing", given)["parts"] == {"language": LANGUAGE, "vision": {**VISION, "mixer": "none"}}
    assert options_for("moslora", given) == given
    assert options_for("full", given) == {}
    assert options_for("lora", {"r": 4, "mixer": "zero"}) == {"r": 4}
    expand(options_for("ts-mixing", given), parts, make_llava(), method="ts-mixing")


def test_the_folded_start_takes_parts_with_and_without_a_mixer(prepared, pictured, make_llava):
    same_dropout = {part: {**own, "lora_dropout": 0} for part, own in MIXED["parts"].items()}
    model = prepared({"parts": same_dropout}, "moslora-init-only")
    assert not mixer_layers(model)
    assert len(adapted(model)) == 8
    assert torch.equal(outputs(model, pictured()), outputs(make_llava(), pictured()))
    with pytest.raises(ConfigError, match="method 'moslora-init-only' has no dropout_pattern"):
        prepared(MIXED, "moslora-init-only")


def test_a_parts_options_are_checked_without_the_model():
    with pytest.raises(ConfigError, match=r"adapter\.r=4\.5: give a whole number"):
        check_by_part("moslora", {"parts": {"language": {"r": 4, "target_modules": ["a"]}, "vision": {"r": 4.5}}})
    check_by_part("moslora", {"parts": {"language": {"r": 4}, "vision": {"mixer": "none"}}})
