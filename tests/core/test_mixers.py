"""The laws of the mixer kinds (paper, sections 2-3, Table 3), against formulas written out by hand."""

import math

import pytest
import torch

from moslora.core.mixers import MIXERS, Mixer, compose, draw_mixer_


def drawn(kind, rank=8, depth=1, seed=0):
    torch.manual_seed(seed)
    weight = torch.empty(depth, rank, rank, dtype=torch.float64)
    draw_mixer_(weight, kind=kind)
    return weight


def test_a_mixer_is_one_link_unless_told():
    assert Mixer(4).weight.shape == (1, 4, 4)


def test_kaiming_stays_within_its_bound_and_has_its_deviation():
    weight = drawn("kaiming", rank=64)
    assert weight.abs().max() <= 1 / math.sqrt(64)
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)


def test_normal_keeps_the_variance_of_its_input():
    assert drawn("normal", rank=64).std().item() == pytest.approx(1 / math.sqrt(64), rel=0.05)


def test_orthogonal_is_orthogonal():
    matrix = drawn("orthogonal")[0]
    torch.testing.assert_close(matrix.T @ matrix, torch.eye(8, dtype=torch.float64))


def test_identity_and_zero():
    assert torch.equal(drawn("identity", depth=2), torch.eye(8, dtype=torch.float64).repeat(2, 1, 1))
    assert not drawn("zero").any()


def test_the_butterfly_is_two_subspace_mixing_on_half_ranks():
    """Equation 3: (A1 + A2) then (B1 + B2) equals B · [[I, I], [I, I]] · A."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(8, 12, dtype=torch.float64, generator=generator)
    b = torch.randn(10, 8, dtype=torch.float64, generator=generator)
    mixed = (b[:, :4] + b[:, 4:]) @ (a[:4] + a[4:])
    torch.testing.assert_close(b @ drawn("butterfly")[0] @ a, mixed)


@pytest.mark.parametrize("kind", MIXERS)
def test_every_link_of_a_chain_is_drawn_on_its_own(kind):
    first, second = drawn(kind, depth=2)
    assert torch.equal(first, second) == (kind in ("identity", "butterfly", "zero"))


def test_a_chain_applies_its_links_first_to_last():
    torch.manual_seed(0)
    mixer = Mixer(4, kind="normal", depth=3).double()
    h = torch.randn(5, 4, dtype=torch.float64)
    one, two, three = mixer.weight
    torch.testing.assert_close(mixer(h), h @ one.T @ two.T @ three.T)
    torch.testing.assert_close(mixer(h), h @ compose(mixer.weight).T)
    torch.testing.assert_close(mixer.matrix(), three @ two @ one)


@pytest.mark.parametrize("positions", [(6,), (3, 5), (2, 3, 5)])
def test_channels_are_mixed_along_the_given_dimension_and_stay_where_they_lie_in_memory(positions):
    mixer = Mixer(4, kind="normal", depth=2)
    images = torch.randn(2, 4, *positions)
    expected = torch.einsum("rc,nc...->nr...", mixer.matrix(), images)
    for channel_dim in (1, -1 - len(positions)):
        mixed = mixer(images, channel_dim)
        torch.testing.assert_close(mixed, expected)
        assert mixed.is_contiguous()
    torch.testing.assert_close(mixer(images[0], 0), expected[0])


def test_a_mixer_is_a_leaf_with_one_weight():
    mixer = Mixer(4, depth=3)
    assert not list(mixer.children())
    assert [name for name, _ in mixer.named_parameters()] == ["weight"]
    assert mixer.weight.shape == (3, 4, 4)


def test_mixers_on_the_meta_device_stay_empty():
    with torch.device("meta"):
        assert Mixer(4, kind="orthogonal").weight.is_meta


def test_unknown_kinds_and_odd_butterflies_are_refused():
    with pytest.raises(ValueError, match="mixer kind 'koiming' is not one of"):
        draw_mixer_(torch.empty(1, 4, 4), kind="koiming")
    with pytest.raises(ValueError, match="rank 5 is odd"):
        draw_mixer_(torch.empty(1, 5, 5), kind="butterfly")
