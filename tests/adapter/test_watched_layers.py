"""What others may do with a layer: hooks, losses, patches, replicas and copies see what they see with PEFT's LoRA."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.tuners.lora.config import LoraRuntimeConfig
from torch import nn

from moslora import MosloraConfig
from moslora.adapter import variants
from moslora.adapter.variants import can_fuse


def adapted(config_class: Any = MosloraConfig, *, base: nn.Module | None = None, **options: Any) -> Any:
    torch.manual_seed(0)
    base = nn.Linear(24, 40) if base is None else base
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ["0"], "init_lora_weights": False} | options
    return get_peft_model(nn.Sequential(base), config_class(**settings))


def layer_of(model: Any) -> Any:
    return model.base_model.model[0]


def inputs(rows: int = 5, features: int = 24) -> torch.Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(1))


def by_hand(layer: Any, x: torch.Tensor) -> torch.Tensor:
    return layer.base_layer(x) + x @ layer.get_delta_weight("default").T


def test_the_base_layers_output_stays_as_hooks_saw_it_and_may_have_a_loss_of_its_own() -> None:
    model, kept = adapted(), []
    layer = layer_of(model)
    layer.base_layer.requires_grad_(True)
    layer.base_layer.register_forward_hook(lambda _, __, output: kept.append(output))
    x = inputs().requires_grad_()
    output = model(x)
    assert torch.equal(kept[0], nn.functional.linear(x, layer.base_layer.weight, layer.base_layer.bias))
    (output.sum() + kept[0].square().sum()).backward()
    found = layer.base_layer.weight.grad, layer.base_layer.bias.grad, x.grad
    layer.base_layer.zero_grad()
    x.grad = None
    (by_hand(layer, x).sum() + layer.base_layer(x).square().sum()).backward()
    for one, two in zip(found, (layer.base_layer.weight.grad, layer.base_layer.bias.grad, x.grad), strict=True):
        torch.testing.assert_close(one, two)


def test_a_trained_bias_gets_its_gradient_in_a_replica_too() -> None:
    model = adapted(bias="lora_only")
    layer = layer_of(model)
    weight, bias = layer.base_layer.weight, layer.base_layer.bias
    replica = layer.base_layer._replicate_for_data_parallel()  # as nn.DataParallel makes one
    replica.weight, replica.bias = weight.view_as(weight), bias.view_as(bias)
    layer._modules["base_layer"] = replica
    model(inputs().requires_grad_()).sum().backward()
    torch.testing.assert_close(bias.grad, torch.full((40,), 5.0))


HOOKS = {
    "forward": lambda part, seen: part.register_forward_hook(lambda *_: seen.append(1)),
    "before forward": lambda part, seen: part.register_forward_pre_hook(lambda *_: seen.append(1)),
    "backward": lambda part, seen: part.register_full_backward_hook(lambda *_: seen.append(1)),
    "before backward": lambda part, seen: part.register_full_backward_pre_hook(lambda *_: seen.append(1)),
    "all modules": lambda part, seen: nn.modules.module.register_module_forward_hook(
        lambda module, *_: seen.append(1) if module is part else None
    ),
}


@pytest.mark.parametrize("part", ["lora_A", "lora_mixer", "lora_B"])
@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_on_a_factor_is_called(part: str, kind: str) -> None:
    variants._say_once.cache_clear()
    model, seen = adapted(), []
    handle = HOOKS[kind](getattr(layer_of(model), part)["default"], seen)
    x = inputs().requires_grad_()
    output = model(x)
    output.sum().backward()
    handle.remove()
    assert seen == [1]
    torch.testing.assert_close(output, by_hand(layer_of(model), x))


def test_a_patched_forward_of_a_factor_is_used() -> None:
    model = adapted()
    factor, x = layer_of(model).lora_B["default"], inputs()
    factor.forward = lambda h: 2 * nn.functional.linear(h, factor.weight)
    base = layer_of(model).base_layer(x)
    torch.testing.assert_close(model(x), base + 2 * (by_hand(layer_of(model), x) - base))


@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_a_factor_of_another_class_computes_for_itself(factor: str) -> None:
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model, x = adapted(), inputs()
    layer = layer_of(model)
    getattr(layer, factor)["default"].__class__ = Doubled
    base = layer.base_layer(x)
    torch.testing.assert_close(model(x), base + 2 * (by_hand(layer, x) - base))


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_is_on_in_training_only_and_drops_the_stated_share(fused: bool) -> None:
    model = adapted(base=nn.Linear(2000, 40), lora_dropout=0.25, fused=fused, mixer="identity", r=40)
    layer = layer_of(model)
    with torch.no_grad():
        layer.lora_A["default"].weight.zero_()
        layer.lora_A["default"].weight[0] = 1
        layer.lora_B["default"].weight.zero_()
        layer.lora_B["default"].weight[0, 0] = 1
    x = torch.ones(50, 2000)
    update = (model.train()(x) - layer.base_layer(x))[:, 0] / layer.scaling["default"]
    kept = update * 0.75 / 2000  # what is kept is scaled by 1 / (1 - p)
    assert (kept.mean() - 0.75).abs() < 0.01
    assert kept.std() > 0.003
    torch.testing.assert_close(model.eval()(x), by_hand(layer, x), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("mixer", ["kaiming", "identity"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_ordinary_layer_takes_the_fused_path_unless_told_otherwise(mixer: str, dtype: torch.dtype) -> None:
    base = nn.Linear(24, 40).to(dtype)
    assert can_fuse(layer_of(adapted(base=base, mixer=mixer, lora_dropout=0.1)), "default")
    assert not can_fuse(layer_of(adapted(base=nn.Linear(24, 40), fused=False)), "default")


def test_factors_that_are_sharded_or_have_a_bias_take_the_plain_path() -> None:
    for factor, rows in (("lora_A", (4, 24)), ("lora_B", (20, 8))):
        layer = layer_of(adapted())
        getattr(layer, factor)["default"].weight = nn.Parameter(torch.zeros(rows))  # as of another process
        assert not can_fuse(layer, "default")
    layer = layer_of(adapted())
    layer.lora_mixer["default"].weight = nn.Parameter(torch.zeros(1, 4, 8))
    assert not can_fuse(layer, "default")


def test_dora_under_dropout_is_pefts() -> None:
    models = [
        adapted(LoraConfig, use_dora=True, lora_dropout=0.5),
        adapted(use_dora=True, lora_dropout=0.5, mixer="identity"),
    ]
    layer_of(models[0]).lora_magnitude_vector["default"].weight.data.mul_(1.5)  # so that the base's output counts
    models[1].load_state_dict(models[0].state_dict(), strict=False)
    outputs = []
    for model in models:
        torch.manual_seed(4)
        outputs.append(model.train()(inputs()))
    torch.testing.assert_close(*outputs)


CONVOLUTIONS = {
    "1d": (nn.Conv1d(8, 6, 3, padding=1), (8, 8)),
    "2d": (nn.Conv2d(8, 6, 3, padding=1), (8, 8, 8)),
    "2d, other height": (nn.Conv2d(8, 6, 3, padding=1), (8, 9, 7)),
    "2d, one position": (nn.Conv2d(8, 6, 1), (8, 8, 8)),
    "3d": (nn.Conv3d(8, 6, 3, padding=1), (8, 8, 8, 8)),
}


@pytest.mark.parametrize("options", [{}, {"mixer": "zero", "use_tucker": True}, {"mixer_depth": 2}], ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_takes_an_image_without_a_batch(name: str, options: dict[str, Any]) -> None:
    base, shape = CONVOLUTIONS[name]
    model, x = adapted(base=copy.deepcopy(base), **options), torch.randn(shape)
    mixer = layer_of(model).lora_mixer["default"].weight
    nn.init.normal_(mixer)
    torch.testing.assert_close(model(x), model(x[None])[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(model(x), layer_of(model).base_layer(x))


def test_float16_neither_overflows_between_the_factors_nor_loses_small_gradients() -> None:
    model = adapted(base=nn.Linear(24, 40).half())
    layer = layer_of(model)
    layer.lora_A["default"].weight.data.mul_(3e4)
    layer.lora_B["default"].weight.data.mul_(1e-5)
    x = inputs().half()
    exact = copy.deepcopy(model).double()
    torch.testing.assert_close(model(x).double(), exact(x.double()), rtol=2e-3, atol=2e-3)
    small = torch.full((5, 40), 1e-7, dtype=torch.float16)
    model(x).backward(small)
    exact(x.double()).backward(small.double())
    for part in ("lora_A", "lora_mixer", "lora_B"):
        found, expected = (getattr(layer_of(m), part)["default"].weight.grad for m in (model, exact))
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_float64_stays_exact_under_autocast() -> None:
    model = adapted(base=nn.Linear(24, 40).double()).double()
    x = inputs().double()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x)
    torch.testing.assert_close(found, model(x), rtol=1e-12, atol=1e-12)


def test_factors_may_be_drawn_while_another_dtype_is_the_default() -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        for kind in ("orthogonal", "kaiming", "normal", "butterfly"):
            weight = layer_of(adapted(mixer=kind)).lora_mixer["default"].weight
            assert weight.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_model_on_the_meta_device_runs() -> None:
    model = adapted().to("meta")
    assert model.train()(torch.empty(5, 24, device="meta")).shape == (5, 40)


def test_the_plain_path_is_a_runtime_option_that_no_file_remembers(tmp_path) -> None:
    config = MosloraConfig(r=4, fused=False)
    assert not layer_of(adapted(fused=False)).fused["default"]
    assert layer_of(adapted()).fused["default"]
    assert not dataclasses.replace(config, r=8).runtime_config.fused
    assert "fused" not in config.to_dict()
    config.save_pretrained(str(tmp_path))
    assert PeftConfig.from_pretrained(str(tmp_path)).runtime_config.fused
    path = tmp_path / "adapter_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"fused": false,', 1), encoding="utf-8")
    assert not PeftConfig.from_pretrained(str(tmp_path)).runtime_config.fused  # as versions wrote it that saved it
    given = LoraRuntimeConfig(ephemeral_gpu_offload=True)
    assert MosloraConfig(runtime_config=given).runtime_config.ephemeral_gpu_offload
