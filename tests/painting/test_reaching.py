from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig

from moslora.errors import CheckpointError
from moslora.painting.drawing import draw
from moslora.painting.reaching import check_reaches, reach
from moslora.painting.requests import Request

ASKED = [Request("a red cat", 1, steps=2, guidance=5.0)]
TARGETS = {"unet": ["to_q", "to_v"], "text_encoder": ["q_proj", "v_proj"]}


@pytest.mark.parametrize("part", TARGETS)
def test_an_adapter_must_change_the_latents(pipeline: Callable[..., Any], part: str) -> None:
    pipe = pipeline("sdxl")
    base = list(draw(pipe, ASKED))
    getattr(pipe, part).add_adapter(LoraConfig(r=2, target_modules=TARGETS[part]))
    with pytest.raises(CheckpointError) as refusal:  # B is zero
        check_reaches(list(draw(pipe, ASKED)), base)
    assert "the adapter changes nothing: with it and without it the latents of 'a red cat', seed 1, differ by" in str(
        refusal.value
    )
    for name, weight in getattr(pipe, part).named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
    changed = list(draw(pipe, ASKED))
    assert check_reaches(changed, base) == reach(changed, base) > 1e-3


def test_rounding_is_no_effect(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    alone, together = list(draw(pipe, ASKED)), list(draw(pipe, ASKED * 4, batch_size=4))
    assert reach(together[:1], alone) < 1e-5
    with pytest.raises(CheckpointError, match="the adapter changes nothing"):
        check_reaches(together[:1], alone)


def test_pictures_of_other_requests_are_not_compared(pipeline: Callable[..., Any]) -> None:
    drawn = list(draw(pipeline("sdxl"), ASKED * 2))
    with pytest.raises(ValueError, match="2 and 1 pictures were not drawn from the same requests"):
        reach(drawn, drawn[:1])
