"""The laws of the adapter family (paper, sections 2-3, appendices C and E) on layers, against float64 references."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from moslora import MosloraConfig

KINDS = [("kaiming", 1), ("orthogonal", 1), ("normal", 1), ("identity", 1), ("butterfly", 1), ("kaiming", 3)]


def linear_model(seed=0, **options):
    torch.manual_seed(seed)
    base = nn.Sequential(nn.Linear(24, 40)).double()
    config = MosloraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": ["0"]} | options)
    return get_peft_model(base, config, autocast_adapter_dtype=False)


def parts(model):
    layer = model.base_model.model[0]
    return (
        layer.base_layer,
        layer.lora_A["default"].weight,
        layer.lora_mixer["default"].weight,
        layer.lora_B["default"].weight,
    )


def reference(x, model, scale):
    """`x Wᵀ + b + scale · x Aᵀ M1ᵀ ... Mnᵀ Bᵀ`, written from the paper."""
    base, a, mixers, b = parts(model)
    h = x @ a.T
    for mixer in mixers:
        h = h @ mixer.T
    return x @ base.weight.T + base.bias + scale * h @ b.T


@pytest.mark.parametrize(("kind", "depth"), KINDS)
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_the_output_is_the_papers_formula(kind, depth, use_rslora, fused):
    model = linear_model(mixer=kind, mixer_depth=depth, use_rslora=use_rslora, fused=fused)
    nn.init.normal_(parts(model)[3])
    x = torch.randn(5, 24, dtype=torch.float64)
    scale = 16 / 8**0.5 if use_rslora else 16 / 8
    torch.testing.assert_close(model(x), reference(x, model, scale), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_the_adapter_starts_as_a_no_op(kind, depth):
    model = linear_model(mixer=kind, mixer_depth=depth)
    x = torch.randn(5, 24, dtype=torch.float64)
    assert torch.equal(model(x), parts(model)[0](x))


def test_floras_start_is_a_no_op_with_drawn_a_and_b():
    model = linear_model(mixer="zero", init_lora_weights=False)
    x = torch.randn(5, 24, dtype=torch.float64)
    _, a, mixer, b = parts(model)
    assert torch.equal(model(x), parts(model)[0](x))
    assert a.any()
    assert b.any()
    model(x).square().sum().backward()
    assert mixer.grad.any()
    assert not a.grad.any()
    assert not b.grad.any()


@pytest.mark.parametrize("fused", [False, True])
def test_identity_is_lora_bit_for_bit_on_the_plain_path_and_to_rounding_on_the_fused(fused):
    x = torch.randn(5, 24, dtype=torch.float64)
    model = linear_model(mixer="identity", mixer_trainable=False, fused=fused)
    torch.manual_seed(0)
    plain = get_peft_model(
        nn.Sequential(nn.Linear(24, 40)).double(),
        LoraConfig(r=8, lora_alpha=16, target_modules=["0"]),
        autocast_adapter_dtype=False,
    )
    layer = plain.base_model.model[0]
    _, a, _, b = parts(model)
    nn.init.normal_(b)
    layer.lora_A["default"].weight.data.copy_(a)
    layer.lora_B["default"].weight.data.copy_(b)
    torch.testing.assert_close(model(x), plain(x), rtol=1e-12 * fused, atol=1e-12 * fused)


def test_the_gradients_are_the_papers():
    """With D = dL/d(delta) · scale: dA = Mᵀ Bᵀ D, dM = Bᵀ D Aᵀ, dB = D Aᵀ Mᵀ."""
    model = linear_model(mixer="normal")
    _, a, mixer, b = parts(model)
    nn.init.normal_(b)
    x, target = torch.randn(5, 24, dtype=torch.float64), torch.randn(5, 40, dtype=torch.float64)
    output = model(x)
    (output * target).sum().backward()
    d = 2.0 * target.T @ x
    m = mixer[0].detach()
    torch.testing.assert_close(a.grad, m.T @ b.detach().T @ d)
    torch.testing.assert_close(mixer.grad[0], b.detach().T @ d @ a.detach().T)
    torch.testing.assert_close(b.grad, d @ a.detach().T @ m.T)


@pytest.mark.parametrize(
    ("kind", "trainable", "coincide"),
    [
        ("orthogonal", False, True),
        ("orthogonal", True, False),
        ("normal", False, False),
    ],
)
def test_trajectories_coincide_with_folding_only_for_a_fixed_orthogonal_mixer(kind, trainable, coincide):
    """Appendix E, for plain gradient steps."""
    mixed = linear_model(mixer=kind, mixer_trainable=trainable)
    folded = linear_model(mixer="identity", mixer_trainable=False)
    folded.base_model.model[0].base_layer.load_state_dict(parts(mixed)[0].state_dict())
    _, a, m, b = parts(mixed)
    with torch.no_grad():
        nn.init.normal_(b, std=0.1)
        parts(folded)[1].copy_(m[0] @ a)
        parts(folded)[3].copy_(b)
    x, target = torch.randn(64, 24, dtype=torch.float64), torch.randn(64, 40, dtype=torch.float64)
    for model in (mixed, folded):
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
        for _ in range(30):
            optimiser.zero_grad()
            nn.functional.mse_loss(model(x), target).backward()
            optimiser.step()
    distance = (mixed(x) - folded(x)).abs().max().item()
    assert (distance < 1e-6) == coincide  # the mixer is drawn in float32


@pytest.mark.parametrize(("kind", "depth", "extra"), [("kaiming", 1, 64), ("kaiming", 3, 192), ("butterfly", 1, 0)])
def test_the_mixer_adds_r_squared_parameters_a_link(kind, depth, extra):
    trainable, _ = linear_model(mixer=kind, mixer_depth=depth).get_nb_trainable_parameters()
    assert trainable == 8 * (24 + 40) + extra


def test_dropout_acts_before_a_and_only_in_training():
    model = linear_model(lora_dropout=0.5)
    nn.init.normal_(parts(model)[3])
    x = torch.randn(5, 24, dtype=torch.float64)
    model.eval()
    torch.testing.assert_close(model(x), reference(x, model, 2.0))
    model.train()
    assert not torch.allclose(model(x), reference(x, model, 2.0))
