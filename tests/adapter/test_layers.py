"""Every layer kind on the allow-list: forward, backward and merge; every other is refused with the reason."""

import copy
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.tuners.lora import Linear as PeftLinear
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from transformers.pytorch_utils import Conv1D

from moslora import MosloraConfig, MosloraError, inspect_adapter, save_folded
from moslora.adapter.layers import MixerLayer
from moslora.adapter.merging import merged_model


def convolution(kind, size, **options):
    return kind(3, 6, size, padding=1, **options)


IMAGE = {1: (2, 3, 7), 2: (2, 3, 7, 6), 3: (2, 3, 5, 4, 6)}
LAYERS = {
    "linear": (lambda: nn.Linear(5, 6), (2, 4, 5)),
    "gpt2-conv1d": (lambda: Conv1D(6, 5), (2, 4, 5)),
    "conv1d": (lambda: convolution(nn.Conv1d, 3), IMAGE[1]),
    "conv2d": (lambda: convolution(nn.Conv2d, 3, stride=2), IMAGE[2]),
    "conv2d-1x1": (lambda: nn.Conv2d(3, 6, 1), IMAGE[2]),
    "conv3d": (lambda: convolution(nn.Conv3d, (1, 3, 3)), IMAGE[3]),
}


def delta_by_hand(layer):
    """`scale · B·M·A` in the layout of the base weight, in float64."""
    a = layer.lora_A["default"].weight.double().flatten(1)
    b = layer.lora_B["default"].weight.double().flatten(1)
    m = layer.lora_mixer["default"].weight[0].double()
    delta = layer.scaling["default"] * b @ m @ a
    weight = layer.get_base_layer().weight
    return delta.T if isinstance(layer.get_base_layer(), Conv1D) else delta.view(weight.shape)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("use_dora", [False, True])
def test_forward_backward_and_merge(name, use_dora):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    base = nn.Sequential(make())
    x = torch.randn(shape)
    if isinstance(base[0], Conv1D):
        nn.init.normal_(base[0].bias)
    options = {"r": 4, "target_modules": ["0"], "init_lora_weights": False, "mixer": "orthogonal", "use_dora": use_dora}
    plain = base(x).detach()
    original = base[0].weight.detach().clone()
    model = get_peft_model(base, MosloraConfig(**options))
    layer = model.base_model.model[0]
    assert isinstance(layer, MixerLayer)
    output = model(x)
    assert not torch.allclose(output, plain, atol=1e-4)
    output.square().sum().backward()
    assert all(parameter.grad.any() for _, parameter in model.named_parameters() if parameter.requires_grad)
    torch.testing.assert_close(layer.get_delta_weight("default").double(), delta_by_hand(layer), rtol=1e-5, atol=1e-6)
    for safe in (False, True):
        model.merge_adapter(safe_merge=safe)
        if not use_dora:
            merged = (original.double() + delta_by_hand(layer)).float()
            torch.testing.assert_close(layer.get_base_layer().weight.data, merged)
        torch.testing.assert_close(model(x), output, rtol=1e-4, atol=1e-5)
        model.unmerge_adapter()
        torch.testing.assert_close(layer.get_base_layer().weight.data, original, rtol=1e-5, atol=1e-6)
    with model.disable_adapter():
        torch.testing.assert_close(model(x), plain)


@pytest.mark.parametrize("name", LAYERS)
def test_the_magnitudes_of_dora_are_the_norms_of_the_mixed_weight(name):
    torch.manual_seed(0)
    config = MosloraConfig(r=4, target_modules=["0"], init_lora_weights=False, use_dora=True)
    layer = get_peft_model(nn.Sequential(LAYERS[name][0]()), config).base_model.model[0]
    mixed = layer.get_base_layer().weight.double() + delta_by_hand(layer)
    rows = mixed.T if isinstance(layer.get_base_layer(), Conv1D) else mixed.flatten(1)
    magnitudes = layer.lora_magnitude_vector["default"].weight.flatten()
    torch.testing.assert_close(magnitudes.double(), rows.norm(dim=1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", LAYERS)
def test_mixed_batches_give_each_row_its_adapter(name):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    model = get_peft_model(nn.Sequential(make()), MosloraConfig(r=4, target_modules=["0"], init_lora_weights=False))
    model.eval()
    layer, x = model.base_model.model[0], torch.randn(shape)
    expected = torch.stack([layer(x)[0], layer.base_layer(x)[1]])
    torch.testing.assert_close(layer(x, adapter_names=["default", "__base__"]), expected)


class ScaledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


REFUSED = [
    (
        nn.MultiheadAttention(8, 2),
        {},
        "MultiheadAttention, which is not known to carry a mixer (allowed: Linear, Conv1D,",
    ),
    (nn.Bilinear(3, 3, 3), {}, "Bilinear, which is not known to carry a mixer"),
    (nn.ConvTranspose2d(3, 6, 3), {}, "ConvTranspose2d, which is not known to carry a mixer"),
    (ScaledLinear(3, 3), {}, "ScaledLinear, which is not known to carry a mixer"),
    (nn.Conv2d(4, 8, 3, groups=2), {"use_dora": True}, "use_dora=True does not work on a convolution with groups=2"),
    (nn.Conv2d(4, 8, 3, dilation=2), {}, "cannot carry a mixer: dilation=(2, 2) is not carried over to A"),
    (nn.Conv2d(4, 8, 3, padding=1, padding_mode="circular"), {}, "padding_mode='circular' is not carried over to A"),
    (nn.Embedding(9, 4, max_norm=1.0), {}, "max_norm=1.0 would rescale A at every lookup"),
    (nn.Embedding(9, 4, sparse=True), {}, "sparse gradients do not pass through the mixer"),
    (nn.Linear(3, 3).to(torch.float8_e4m3fn), {}, "its weight is a Parameter of torch.float8_e4m3fn"),
]
RECOMPUTED = {
    "weight_norm": lambda: weight_norm(nn.Linear(3, 4)),
    "weight_norm of a convolution": lambda: weight_norm(nn.Conv1d(3, 4, 2)),
    "weight_norm as a hook": lambda: nn.utils.weight_norm(nn.Linear(3, 4)),
    "spectral_norm": lambda: spectral_norm(nn.Linear(3, 4)),
    "spectral_norm as a hook": lambda: nn.utils.spectral_norm(nn.Linear(3, 4)),
    "orthogonal": lambda: orthogonal(nn.Linear(3, 4)),
    "pruned weight": lambda: prune.l1_unstructured(nn.Linear(3, 4), "weight", 2),
    "pruned bias": lambda: prune.l1_unstructured(nn.Linear(3, 4), "bias", 2),
}


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")
@pytest.mark.parametrize(("layer", "options", "message"), REFUSED, ids=lambda value: type(value).__name__)
def test_layers_off_the_list_are_refused_with_the_reason(layer, options, message):
    model = nn.Sequential(layer)
    with pytest.raises(MosloraError, match=re.escape(message)) as caught:
        get_peft_model(model, MosloraConfig(target_modules=["0"], **options))
    assert "leave" in str(caught.value)


def test_lora_layers_of_the_users_own_are_refused():
    config = MosloraConfig(target_modules=["0"])
    config._register_custom_module({nn.Linear: PeftLinear})
    with pytest.raises(MosloraError, match="LoRA layers registered for Linear cannot be used: they have no mixer"):
        get_peft_model(nn.Sequential(nn.Linear(3, 3)), config)


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("kind", RECOMPUTED)
def test_a_layer_whose_weight_is_computed_anew_at_every_pass_is_refused(kind):
    with pytest.raises(MosloraError, match="cannot carry a mixer: its weight is recomputed at every forward pass"):
        get_peft_model(nn.Sequential(RECOMPUTED[kind]()), MosloraConfig(target_modules=["0"]))


GROUPED = {
    "conv1d": (lambda: nn.Conv1d(8, 12, 3, padding=1, groups=2), (2, 8, 7)),
    "conv2d": (lambda: nn.Conv2d(8, 12, 3, stride=2, groups=4), (2, 8, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(8, 8, 3, groups=8), (2, 8, 7, 6)),
    "1x1": (lambda: nn.Conv2d(8, 12, 1, groups=2), (2, 8, 7, 6)),
    "conv3d": (lambda: nn.Conv3d(8, 8, (1, 3, 3), groups=2), (2, 8, 3, 4, 6)),
}


def grouped(kind, **options):
    torch.manual_seed(0)
    make, shape = GROUPED[kind]
    base = nn.Sequential(make())
    config = MosloraConfig(r=8, target_modules=["0"], init_lora_weights=False, **options)
    return get_peft_model(base, config), torch.randn(shape)


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")
@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", GROUPED)
def test_a_grouped_convolution_computes_b_of_each_group_on_its_own_mixed_channels(kind, tucker):
    model, x = grouped(kind, **({"use_tucker": True, "mixer": "zero"} if tucker else {}))
    layer = model.base_model.model[0]
    base = layer.base_layer
    nn.init.normal_(layer.lora_mixer["default"].weight)
    a, b, m = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.mixer_matrix("default")
    mixed = torch.einsum("pq,q...->p...", m, a) if m.dim() == 2 else torch.einsum("pq...,qi->pi...", m, a.flatten(1))
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[x.dim()]
    h = convolve(x, mixed, stride=base.stride, padding=base.padding)
    outputs = [convolve(part, rows) for part, rows in zip(h.chunk(base.groups, 1), b.chunk(base.groups), strict=True)]
    torch.testing.assert_close(model(x), base(x) + layer.scaling["default"] * torch.cat(outputs, 1))
    model(x).square().sum().backward()
    assert all(parameter.grad.any() for _, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")
@pytest.mark.parametrize("kind", GROUPED)
def test_a_grouped_convolution_saves_loads_and_folds(kind, tmp_path):
    model, x = grouped(kind)
    model.eval()
    save_folded(model, tmp_path / "folded", probe={"input": x})
    model.save_pretrained(tmp_path / "saved")
    for folder in ("folded", "saved"):
        base = nn.Sequential(copy.deepcopy(model.base_model.model[0].base_layer))
        loaded = PeftModel.from_pretrained(base, tmp_path / folder)
        torch.testing.assert_close(loaded(x), model(x))
    (report,) = inspect_adapter(model)
    assert report.effective_rank > 1


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")
def test_a_grouped_convolution_is_not_merged_and_left_as_it_was():
    model, _ = grouped("conv2d")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for merge in (model.merge_adapter, model.merge_and_unload, lambda: merged_model(model)):
        with pytest.raises(MosloraError, match=r"convolution with groups=4, which cannot be merged: .*folded"):
            merge()
    with pytest.raises(MosloraError, match="groups=4, whose factors cannot be combined"):
        model.add_weighted_adapter(["default"], [1.0], "copy")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("options", [{"dilation": 2}, {"padding_mode": "circular"}])
def test_settings_of_convolutions_that_change_nothing_are_no_obstacle(options):
    torch.manual_seed(0)
    model = get_peft_model(
        nn.Sequential(nn.Conv2d(4, 8, 1, **options)), MosloraConfig(target_modules=["0"], init_lora_weights=False)
    )
    x = torch.randn(2, 4, 5, 5)
    expected = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected)


def test_the_output_projection_of_multihead_attention_is_refused():
    with pytest.raises(MosloraError, match="NonDynamicallyQuantizableLinear, which is not known to carry a mixer"):
        get_peft_model(nn.MultiheadAttention(8, 2), MosloraConfig(target_modules=["out_proj"]))


@pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")
def test_a_layer_that_has_plain_lora_is_refused():
    model = inject_adapter_in_model(LoraConfig(target_modules=["0"]), nn.Sequential(nn.Linear(3, 3)), "plain")
    with pytest.raises(MosloraError, match=r"0 already has a .*Linear adapter, which would drop the mixer"):
        inject_adapter_in_model(MosloraConfig(target_modules=["0"]), model, "mixed")


@pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")
def test_plain_lora_can_join_a_layer_with_a_mixer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4))
    x = torch.randn(5, 3)
    inject_adapter_in_model(MosloraConfig(target_modules=["0"], init_lora_weights=False), model, "mixed")
    inject_adapter_in_model(LoraConfig(target_modules=["0"], init_lora_weights=False), model, "plain")
    model[0].set_adapter("plain")
    weight = model[0].get_base_layer().weight + model[0].lora_B["plain"].weight @ model[0].lora_A["plain"].weight
    expected = x @ weight.T + model[0].get_base_layer().bias
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model[0].get_delta_weight("plain"), weight - model[0].get_base_layer().weight)


@pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")
def test_plain_lora_beside_a_mixer_gets_its_input_cast_as_in_peft():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4)).to(torch.bfloat16)
    inject_adapter_in_model(MosloraConfig(target_modules=["0"], init_lora_weights=False), model, "mixed")
    inject_adapter_in_model(LoraConfig(target_modules=["0"], init_lora_weights=False), model, "plain")
    for factor in ("lora_A", "lora_B", "lora_mixer"):
        getattr(model[0], factor).float()
    x = torch.randn(5, 3).to(torch.bfloat16)
    for names in (["plain"], ["mixed"], ["mixed", "plain"]):
        model[0].set_adapter(names)
        delta = sum(model[0].get_delta_weight(name) for name in names)
        expected = model[0].base_layer(x).float() + x.float() @ delta.T
        torch.testing.assert_close(model(x).float(), expected, rtol=0.02, atol=0.02)


def test_lora_bias_trains_and_merges():
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(5, 6)), MosloraConfig(target_modules=["0"], lora_bias=True))
    layer, x = model.base_model.model[0], torch.randn(3, 5)
    nn.init.normal_(layer.lora_B["default"].bias)
    nn.init.normal_(layer.lora_B["default"].weight)
    expected = model(x)
    model.merge_adapter()
    torch.testing.assert_close(model(x), expected)
