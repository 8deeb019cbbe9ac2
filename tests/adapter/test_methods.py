"""Method names, their options, and the models they prepare."""

import re

import pytest
import torch
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, VeraConfig, get_peft_model_state_dict

from moslora import MosloraConfig, MosloraError, fold
from moslora.adapter.methods import METHODS, known_options, method_config
from moslora.adapter.preparing import (
    callbacks,
    check_quantisable,
    optimiser,
    prepare,
    save_trained,
    starting_tensors,
)
from moslora.adapter.storage import load_adapter
from moslora.errors import CheckpointError, ConfigError

SHARED = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
ADAPTERS = [name for name in METHODS if name != "full"]


def test_each_name_is_the_method_it_says():
    assert type(method_config("lora", {"r": 4})) is LoraConfig
    moslora = method_config("moslora", {"r": 4, "mixer": "orthogonal"})
    assert isinstance(moslora, MosloraConfig)
    assert (moslora.mixer, moslora.mixer_trainable, moslora.mixer_depth) == ("orthogonal", True, 1)
    mixing = method_config("ts-mixing", {"r": 4})
    assert (mixing.mixer, mixing.mixer_trainable) == ("butterfly", False)
    assert method_config("linchain", {}).mixer_depth == 3
    assert method_config("linchain", {"mixer_depth": 2}).mixer_depth == 2
    assert (method_config("moslora-frozen", {}).mixer, method_config("moslora-frozen", {}).mixer_trainable) == (
        "kaiming",
        False,
    )
    assert type(method_config("moslora-init-only", {"mixer": "orthogonal"})) is LoraConfig
    flora = method_config("flora", {})
    assert (flora.mixer, flora.init_lora_weights) == ("zero", False)
    assert method_config("dora", {}).use_dora
    assert method_config("moslora+dora", {}).use_dora
    assert method_config("rslora", {}).use_rslora
    assert method_config("pissa", {}).init_lora_weights == "pissa"
    assert type(method_config("lora+", {"loraplus_lr_ratio": 8})) is LoraConfig
    assert method_config("full", {}) is None
    assert all(method_config(name, {}).task_type == "CAUSAL_LM" for name in ADAPTERS)


def test_shared_options_reach_each_class_under_its_own_name():
    loha = method_config("loha", SHARED)
    assert isinstance(loha, LoHaConfig)
    assert (loha.r, loha.alpha, loha.rank_dropout) == (4, 8, 0.1)
    lokr = method_config("lokr", {"r": 4, "alpha": 8})
    assert isinstance(lokr, LoKrConfig)
    assert lokr.alpha == 8
    vera = method_config("vera", known_options("vera", SHARED))
    assert isinstance(vera, VeraConfig)
    assert (vera.r, vera.vera_dropout) == (4, 0.1)
    assert "lora_alpha" not in known_options("vera", SHARED)
    assert known_options("full", SHARED) == {}


def test_adalora_plans_over_the_steps_of_the_training():
    config = method_config("adalora", SHARED, total_steps=200)
    assert isinstance(config, AdaLoraConfig)
    assert (config.target_r, config.init_r, config.total_step, config.tinit, config.tfinal) == (4, 6, 200, 20, 60)
    assert method_config("adalora", {"r": 4, "tinit": 7}, total_steps=200).tinit == 7
    assert method_config("adalora", {"r": 1}).init_r == 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("mos-lora", {}, "unknown method 'mos-lora'; did you mean 'moslora'? (moslora methods lists all)"),
        ("moslora", {"rank": 4}, "unknown option of method 'moslora' in adapter: 'rank'"),
        ("lora", {"mixer": "kaiming"}, "unknown option of method 'lora' in adapter: 'mixer'"),
        ("lora", {"loraplus_lr_ratio": 4}, "unknown option of method 'lora' in adapter: 'loraplus_lr_ratio'"),
        ("ts-mixing", {"mixer": "kaiming"}, "adapter.mixer is fixed for method 'ts-mixing' (butterfly): remove it"),
        ("dora", {"use_dora": False}, "adapter.use_dora is fixed for method 'dora' (True): remove it"),
        ("adalora", {"total_step": 5}, "adapter.total_step is fixed for method 'adalora' (the training's): remove it"),
        ("adalora", {"r": 4, "init_r": 4}, "adapter.init_r=4 must be above adapter.target_r=4"),
        ("adalora", {"tfinal": 1000}, "adapter: The supplied schedule values don't allow for a budgeting phase."),
        ("loha", {"lora_alpha": 4, "alpha": 4}, "adapter.lora_alpha and adapter.alpha are the same option of 'loha'"),
        ("vera", {"lora_alpha": 4}, "unknown option of method 'vera' in adapter: 'lora_alpha'"),
        ("lora+", {"loraplus_lr_ratio": 0}, "adapter.loraplus_lr_ratio=0: give a number above 0"),
        ("moslora", {"mixer_lr_ratio": "x"}, "adapter.mixer_lr_ratio='x': give a number above 0"),
        ("full", {"r": 4, "lora_alpha": 8}, "method 'full' has no adapter and takes no options: remove r, lora_alpha"),
        ("pissa", {"init_lora_weights": True}, "adapter.init_lora_weights=True is not PiSSA's start: give 'pissa'"),
        ("ts-mixing", {"r": 5}, "r=5 is odd"),
        ("moslora", {"r": 0}, "r=0 is not a rank"),
        ("moslora", {"mixer": "none"}, "unknown mixer 'none'"),
        ("lora", {"target_modules": "x", "layers_to_transform": [1]}, "adapter: `layers_to_transform` cannot be used"),
    ],
)
def test_what_is_not_allowed_is_one_clear_line(method, options, message):
    with pytest.raises(MosloraError, match=re.escape(message)) as caught:
        method_config(method, options)
    assert "\n" not in str(caught.value)


def test_a_mistyped_option_gets_the_nearest_name_and_not_the_forty_others():
    with pytest.raises(ConfigError) as caught:
        method_config("moslora", {"lora_alhpa": 4})
    assert str(caught.value) == (
        "unknown option of method 'moslora' in adapter: 'lora_alhpa'; did you mean 'lora_alpha'?"
    )


def test_one_step_is_too_short_for_adalora():
    with pytest.raises(ConfigError, match="plans its ranks over the whole training, and needs at least 2 steps, not 1"):
        method_config("adalora", {}, total_steps=1)


@pytest.mark.parametrize("method", ADAPTERS)
def test_every_adapter_is_a_no_op_when_it_is_drawn(method, make_base, logits):
    expected = logits(make_base())
    prepared = prepare(make_base(), method, known_options(method, SHARED))
    torch.testing.assert_close(logits(prepared), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ADAPTERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_trained_is_the_adapter_in_float32(method, dtype, make_base, train):
    base = make_base().to(dtype)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    model = prepare(base, method, known_options(method, SHARED))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    drawn = [parameter.detach().clone() for parameter in trained]
    train(model)
    assert {parameter.dtype for parameter in trained} == {torch.float32}
    assert not any(torch.equal(parameter, start) for parameter, start in zip(trained, drawn, strict=True))
    after = {name.replace(".base_layer", ""): t for name, t in model.get_base_model().state_dict().items()}
    if METHODS[method].save_from_start is None:
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_control_starts_as_plain_lora_where_the_mixer_would(make_base):
    options = {"r": 4, "target_modules": ["q_proj"], "mixer": "orthogonal"}
    torch.manual_seed(5)
    expected = fold(prepare(make_base(), "moslora", options))[1]
    torch.manual_seed(5)
    control = prepare(make_base(), "moslora-init-only", options)
    assert type(control.peft_config["default"]) is LoraConfig
    tensors = get_peft_model_state_dict(control)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in expected.items())


def test_a_start_that_does_not_fit_is_refused(make_base, monkeypatch):
    def misnamed(model):
        config, tensors = fold(model)
        return config, {f"{key}.other": tensor for key, tensor in tensors.items()}

    monkeypatch.setattr("moslora.adapter.preparing.fold", misnamed)
    with pytest.raises(CheckpointError, match="the folded start does not fit plain LoRA"):
        prepare(make_base(), "moslora-init-only", {"r": 4, "target_modules": ["q_proj"]})


def test_full_fine_tuning_trains_every_weight_in_float32(make_base):
    model = prepare(make_base().bfloat16(), "full", {})
    assert not isinstance(model, PeftModel)
    assert {(p.requires_grad, p.dtype) for p in model.parameters()} == {(True, torch.float32)}


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_saved_adapter_gives_its_logits_on_the_untouched_base(method, tmp_path, make_base, train, logits):
    options = {**known_options(method, SHARED), "lora_dropout": 0.0}
    prepared = prepare(make_base(), method, options, total_steps=40)
    start = starting_tensors(prepared, method)
    model = train(prepared, rate=0.05)
    expected = logits(model)
    save_trained(model, tmp_path / "adapter", method=method, start=start)
    loaded = load_adapter(make_base(), tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-5)
    assert (logits(make_base()) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4"])
def test_pissa_is_converted_by_its_start_and_not_by_drawing_again(start, tmp_path, make_base, train, logits):
    torch.manual_seed(3)
    options = {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"], "init_lora_weights": start}
    prepared = prepare(make_base(), "pissa", options)
    drawn = starting_tensors(prepared, "pissa")
    model = train(prepared)
    expected = logits(model)
    save_trained(model, tmp_path / "adapter", method="pissa", start=drawn)
    torch.manual_seed(99)
    torch.testing.assert_close(logits(load_adapter(make_base(), tmp_path / "adapter")), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_for_another_model_is_refused(tmp_path, make_base):
    prepare(make_base(), "lora", {"r": 4, "target_modules": ["q_proj"]}).save_pretrained(str(tmp_path))
    smaller = type(make_base())(type(make_base().config)(**{**make_base().config.to_dict(), "hidden_size": 32}))
    with pytest.raises(CheckpointError, match="does not fit the model") as caught:
        load_adapter(smaller, tmp_path)
    assert "\n" not in str(caught.value)


def test_only_lora_plus_and_a_mixer_ratio_need_an_optimiser_of_their_own(make_base):
    assert optimiser("moslora", {}, weight_decay=0.0) is None
    assert optimiser("lora", {}, weight_decay=0.0) is None
    model = prepare(make_base(), "moslora", {"r": 4, "target_modules": ["q_proj"]})
    make = optimiser("moslora", {"mixer_lr_ratio": 4}, weight_decay=0.1)
    assert make is not None
    others, mixers = make(model, torch.optim.AdamW, {"lr": 0.5}).param_groups
    assert (others["lr"], mixers["lr"], others["weight_decay"]) == (0.5, 2.0, 0.1)
    assert (len(others["params"]), len(mixers["params"])) == (4, 2)


def test_only_adalora_works_while_the_trainer_trains(make_base):
    for method in ("lora", "moslora", "full"):
        assert callbacks(make_base(), method) == []
    assert len(callbacks(prepare(make_base(), "adalora", {"r": 4, "target_modules": ["q_proj"]}), "adalora")) == 1


def test_a_method_says_which_quantised_bases_it_takes():
    check_quantisable("moslora", "nf4")
    check_quantisable("full", "none")
    with pytest.raises(ConfigError, match=re.escape("model.quantize: int8 (allowed: none, nf4), or choose another")):
        check_quantisable("dora", "int8")


def test_every_method_says_what_it_is_and_where_it_comes_from():
    for name, method in METHODS.items():
        assert len(method.summary) < 70, name
        assert method.source, name
