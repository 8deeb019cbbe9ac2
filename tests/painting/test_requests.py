from typing import Any

import pytest

from moslora.errors import ConfigError
from moslora.painting.requests import Request, requests_for

PROMPTS = ["a red cat", "a dog on the beach"]


def test_every_prompt_meets_every_seed_prompt_by_prompt() -> None:
    found = requests_for(PROMPTS, [7, 9], negative_prompt="blurred", steps=2, guidance=5.0, width=64, height=32)
    assert [(one.number, one.prompt, one.seed) for one in found] == [
        (0, PROMPTS[0], 7),
        (0, PROMPTS[0], 9),
        (1, PROMPTS[1], 7),
        (1, PROMPTS[1], 9),
    ]
    assert found[0] == Request(PROMPTS[0], 7, "blurred", steps=2, guidance=5.0, width=64, height=32, number=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "the seed of a picture is -1; give a whole number from 0 to 2^63 - 1"),
        ({"seed": 2**63}, "the seed of a picture is 9223372036854775808; give"),
        ({"steps": 0}, "cannot be drawn in 0 steps; give at least 1"),
        ({"width": 60}, "the width of a picture is 60; give a multiple of 8 pixels"),
        ({"height": 0}, "the height of a picture is 0; give a multiple of 8 pixels"),
        ({"number": -2}, "the number of a prompt is -2; count from 0"),
    ],
)
def test_a_request_that_cannot_be_drawn_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        Request(**{"prompt": "a cat", "seed": 1, **wrong})
    assert message in str(refusal.value)


def test_equal_seeds_and_empty_lists_are_refused() -> None:
    with pytest.raises(ConfigError, match="the seeds 1, 2, 1 are not all different"):
        requests_for(PROMPTS, [1, 2, 1])
    with pytest.raises(ConfigError, match="0 prompts and 1 seeds make no pictures"):
        requests_for([], [1])
