"""Weights of sources."""

from collections import Counter

import pytest

from moslora.data.mixing import weighted

SOURCES = {"a": range(10), "b": range(10, 20), "c": range(20, 24)}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 1, "b": 1}, [10, 10]),
        ({"a": 2, "b": 1}, [20, 10]),
        ({"a": 0.2, "b": 0.1}, [20, 10]),
        ({"a": 1, "c": 1}, [10, 10]),
        ({"a": 1, "c": 3}, [10, 30]),
        ({"a": 5, "c": 1}, [20, 4]),
    ],
)
def test_an_epoch_holds_each_source_in_proportion_and_every_sample(weights, expected):
    numbers = {name: SOURCES[name] for name in weights}
    mixed = weighted(numbers, weights, seed=1)
    assert [sum(number in own for number in mixed) for own in numbers.values()] == expected
    for own in numbers.values():
        often = Counter(number for number in mixed if number in own)
        assert set(often) == set(own)
        assert max(often.values()) - min(often.values()) <= 1


def test_which_samples_come_once_more_depends_on_the_seed():
    draws = {seed: weighted({"a": SOURCES["a"], "c": SOURCES["c"]}, {"a": 1, "c": 1}, seed=seed) for seed in range(6)}
    assert weighted({"a": SOURCES["a"], "c": SOURCES["c"]}, {"a": 1, "c": 1}, seed=3) == draws[3]
    assert len({tuple(draw) for draw in draws.values()}) > 1
