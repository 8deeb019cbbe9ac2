"""What dropout drops: the right share, independently, the same again from the same seed."""

import numpy as np
import pytest
import torch

from moslora.core.dropping import _positions, draw_positions, drop, drop_, drop_some


def dropped_of(count, p, seed=0):
    torch.manual_seed(seed)
    positions = draw_positions(count, p)
    assert torch.equal(positions, positions.unique())
    dropped = torch.zeros(count, dtype=torch.float64)
    dropped[positions.long()] = 1
    return dropped


@pytest.mark.parametrize("p", [0.01, 0.05, 0.5, 0.9])
def test_the_share_is_p_and_the_elements_are_independent(p):
    count = 1_003_000
    deviation = (p * (1 - p)) ** 0.5
    values = (dropped_of(count, p) - p) / deviation
    assert abs(values.mean().item()) < 4 / count**0.5
    for lag in (1, 2, 3, 4, 8, 1003):
        assert abs((values[:-lag] * values[lag:]).mean().item()) < 4 / count**0.5
    assert abs(values[:1000].mean().item()) < 4 / 1000**0.5
    assert abs(values[-1000:].mean().item()) < 4 / 1000**0.5


def test_every_position_is_dropped_equally_often():
    counts = sum(dropped_of(40, 0.3, seed=seed) for seed in range(4000)) / 4000
    assert (counts - 0.3).abs().max() < 4.5 * (0.21 / 4000) ** 0.5


def test_the_seed_decides_and_successive_draws_differ():
    assert torch.equal(dropped_of(5000, 0.1), dropped_of(5000, 0.1))
    torch.manual_seed(0)
    assert not torch.equal(draw_positions(5000, 0.1), draw_positions(5000, 0.1))


@pytest.mark.parametrize(("p", "share"), [(1.0, 1.0), (1e-9, 0.0)])
def test_the_ends_of_the_range(p, share):
    assert dropped_of(5000, p).mean() == share


@pytest.mark.parametrize("as_mask", [False, True])
def test_dropping_zeroes_the_chosen_elements_of_any_layout(as_mask):
    x = torch.randn(6, 4).t()
    chosen = torch.tensor([0, 7, 23])
    expected = x.contiguous().flatten().index_fill(0, chosen, 0).view(4, 6)
    dropped = torch.ones(24, dtype=torch.bool).index_fill_(0, chosen, False).view(4, 6) if as_mask else chosen.int()
    assert torch.equal(drop(x, dropped), expected)
    assert torch.equal(drop_(x.contiguous(), dropped), expected)


def test_what_is_left_and_what_is_said_to_be_dropped_agree():
    x = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    seen, dropped, growth = drop_some(x, 0.3)
    assert 5 < (seen == 0).sum() < 35
    torch.testing.assert_close(seen, growth * drop(x, dropped))


def test_positions_beyond_32_bits_keep_their_order():
    positions = _positions(2**33, 2e-8, np.random.Generator(np.random.SFC64(0)))
    assert len(positions) > 100
    assert positions[-1] > 2**32
    assert (np.diff(positions) > 0).all()
    assert positions[0] >= 0
    assert positions[-1] < 2**33


def test_positions_that_fall_short_are_drawn_on():
    class Short:
        """A generator whose distances are all 0, so that every element is dropped, far more than expected."""

        def standard_exponential(self, count: int, dtype: type) -> np.ndarray:
            return np.zeros(count, dtype)

    assert _positions(1000, 0.1, Short()).tolist() == [*range(1000)]  # pyright: ignore[reportArgumentType]
