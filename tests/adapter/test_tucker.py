"""FLoRA on convolutions: a core of the kernel's size between an A and a B that see one position."""

import copy

import pytest
import torch
from peft import get_peft_model, set_peft_model_state_dict
from torch import nn
from torch.nn import functional as F

from moslora import MosloraConfig, fold
from moslora.adapter.inspection import inspect_adapter
from moslora.adapter.methods import method_config
from moslora.adapter.pictures import mixers_of
from moslora.core.mixers import TuckerCore
from moslora.errors import ConfigError

CONVOLUTIONS = {
    "conv1d": (lambda: nn.Conv1d(3, 6, 3, padding=1), (2, 3, 7), F.conv1d),
    "conv2d": (lambda: nn.Conv2d(3, 6, (3, 5), stride=2, padding=1), (2, 3, 7, 8), F.conv2d),
    "conv3d": (lambda: nn.Conv3d(3, 6, (1, 3, 3), padding=(0, 1, 1)), (2, 3, 4, 5, 6), F.conv3d),
}


def flora(base, **options):
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["0"], **options}
    return get_peft_model(base, method_config("flora", settings, task_type=None))


def with_core(name):
    """An adapted convolution with a drawn core, its base as it was, and an input."""
    torch.manual_seed(0)
    make, shape, _ = CONVOLUTIONS[name]
    base = nn.Sequential(make())
    model = flora(copy.deepcopy(base))
    nn.init.normal_(model.base_model.model[0].lora_mixer["default"].weight)
    return model, base, torch.randn(shape)


def delta_by_hand(layer):
    """`scale · sum over p, q of B[o, p] · core[p, q, k...] · A[q, i]`, in float64 and written out."""
    a = layer.lora_A["default"].weight.double().flatten(1)
    b = layer.lora_B["default"].weight.double().flatten(1)
    core = layer.lora_mixer["default"].weight[0].double()
    delta = torch.zeros(layer.get_base_layer().weight.shape, dtype=torch.float64)
    for p in range(4):
        for q in range(4):
            channels = torch.outer(b[:, p], a[q])
            delta += channels.view(*channels.shape, *[1] * (core.dim() - 2)) * core[p, q]
    return delta * layer.scaling["default"]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_start_is_a_no_op_from_which_only_the_core_moves_first(name):
    torch.manual_seed(0)
    make, shape, _ = CONVOLUTIONS[name]
    base, x = nn.Sequential(make()), torch.randn(shape)
    expected = base(x)
    model = flora(base)
    assert torch.equal(model(x), expected)
    model(x).square().sum().backward()
    moving = {key.split(".")[-3] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moving == {"lora_mixer"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_the_output_is_that_of_the_weight_with_the_core_between_the_factors(name):
    model, base, x = with_core(name)
    layer = model.base_model.model[0]
    core = layer.lora_mixer["default"]
    assert isinstance(core, TuckerCore)
    assert core.weight.shape == (1, 4, 4, *base[0].kernel_size)
    weight = base[0].weight.double() + delta_by_hand(layer)
    convolve = CONVOLUTIONS[name][2]
    expected = convolve(x.double(), weight, base[0].bias.double(), base[0].stride, base[0].padding)
    output = model(x)
    torch.testing.assert_close(output.double(), expected, rtol=1e-5, atol=1e-5)
    output.square().sum().backward()
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.requires_grad)
    torch.testing.assert_close(layer.get_delta_weight("default").double(), delta_by_hand(layer), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_merging_equals_the_adapter_and_unmerging_restores(name):
    model, base, x = with_core(name)
    output = model(x)
    model.merge_adapter(safe_merge=True)
    torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
    model.unmerge_adapter()
    torch.testing.assert_close(model.base_model.model[0].base_layer.weight, base[0].weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_it_folds_into_plain_lora_of_the_same_rank(name):
    model, base, x = with_core(name)
    config, tensors = fold(model)
    plain = get_peft_model(copy.deepcopy(base), config)
    assert not set_peft_model_state_dict(plain, tensors).unexpected_keys
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-5)


def test_it_saves_and_loads_as_itself(tmp_path):
    from peft import PeftModel

    model, base, x = with_core("conv2d")
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)(x), model(x))


def test_pointwise_convolutions_and_linear_layers_have_the_ordinary_mixer():
    base = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Flatten(2), nn.Linear(4, 5))
    model = flora(base, target_modules=["0", "2"])
    shapes = [tuple(p.shape) for name, p in model.named_parameters() if "lora_mixer" in name]
    assert shapes == [(1, 4, 4), (1, 4, 4)]


def test_it_is_inspected_by_its_update_and_shows_no_matrix():
    model, _, _ = with_core("conv2d")
    (report,) = inspect_adapter(model)
    norm = delta_by_hand(model.base_model.model[0]).norm().item()
    assert report.update_norm == pytest.approx(norm, rel=1e-5)
    assert report.mixer_parameters == 4 * 4 * 3 * 5
    assert report.mixer_condition is None
    assert mixers_of(model) == {}


def test_cores_are_not_combined():
    model, _, _ = with_core("conv2d")
    with pytest.raises(ConfigError, match="adapter 'default' has convolution cores, which cannot be combined; fold it"):
        model.add_weighted_adapter(["default"], [1.0], "both")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"mixer": "orthogonal"}, "mixer='orthogonal'"),
        ({"mixer": "zero", "init_lora_weights": False, "use_dora": True}, "use_dora=True"),
    ],
)
def test_a_core_that_starts_otherwise_is_refused(options, given):
    with pytest.raises(ConfigError) as refused:
        MosloraConfig(r=4, use_tucker=True, **options)
    assert str(refused.value) == (
        f"use_tucker=True with {given}: the core of a convolution starts at zero, without DoRA (set mixer='zero',"
        " init_lora_weights=False and use_dora=False, or leave use_tucker out)"
    )
