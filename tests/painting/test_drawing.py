import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from torch import nn

from moslora.errors import CheckpointError, ConfigError
from moslora.painting.drawing import Drawn, draw
from moslora.painting.requests import Request, requests_for
from tests.painting.conftest import KINDS

ROUNDING = 1e-4  # sums in another order; the latents themselves are about 1 to 10


def requests(*seeds: int, **settings: Any) -> list[Request]:
    return requests_for(["a red cat", "a dog on the beach"], seeds, **{"steps": 2, "guidance": 5.0, **settings})


def pixels(drawn: Drawn) -> np.ndarray:
    return np.asarray(drawn.image).astype(int)


def farthest(some: list[Drawn], others: list[Drawn]) -> float:
    return max(float((one.latents - other.latents).abs().max()) for one, other in zip(some, others, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_depend_on_its_batch(pipeline: Callable[..., Any], kind: str) -> None:
    pipe, asked = pipeline(kind), requests(1, 2)
    alone, together = list(draw(pipe, asked)), list(draw(pipe, asked, batch_size=4))
    assert [one.request for one in alone] == [one.request for one in together] == asked
    assert farthest(alone, together) < ROUNDING
    assert farthest(alone[:1], alone[1:2]) > 0.1
    assert all(np.abs(pixels(a) - pixels(b)).max() <= 1 for a, b in zip(alone, together, strict=True))
    assert alone[0].image.size == (32, 32)
    assert alone[0].latents.shape == (4, 16, 16)


def test_the_noise_that_a_sampler_adds_belongs_to_the_picture_too(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    asked = requests(1, 2)
    assert farthest(list(draw(pipe, asked, batch_size=4)), list(draw(pipe, asked))) < ROUNDING


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_picture_starts_from_the_noise_of_its_seed_bit_for_bit(pipeline: Callable[..., Any], batch_size: int) -> None:
    pipe = pipeline("sd3")
    started: list[torch.Tensor] = []
    pipe.transformer.register_forward_pre_hook(
        lambda _module, _arguments, given: started.append(given["hidden_states"]), with_kwargs=True
    )
    list(draw(pipe, requests(5, 6, steps=1, guidance=1.0), batch_size=batch_size))
    noise = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6, 5, 6)]
    assert torch.equal(torch.cat(started), torch.cat(noise))


@pytest.mark.parametrize("kind", KINDS)
def test_the_picture_is_the_one_that_the_pipeline_itself_draws(pipeline: Callable[..., Any], kind: str) -> None:
    pipe = pipeline(kind)
    [drawn] = draw(pipe, [Request("a red cat", 3, steps=2, guidance=5.0)])
    own = pipe("a red cat", num_inference_steps=2, guidance_scale=5.0, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(pixels(drawn), np.asarray(own.images[0]))


def test_latents_with_a_mean_of_their_own_are_decoded_as_by_the_pipeline(pipeline: Callable[..., Any]) -> None:
    pipe, asked = pipeline("sdxl"), [Request("a red cat", 3, steps=2, guidance=5.0)]
    [usual] = draw(pipe, asked)
    pipe.vae.register_to_config(latents_mean=[0.5, -1.0, 0.0, 2.0], latents_std=[0.5, 1.0, 2.0, 3.0])
    [drawn] = draw(pipe, asked)
    own = pipe("a red cat", num_inference_steps=2, guidance_scale=5.0, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(pixels(drawn), np.asarray(own.images[0]))
    assert np.abs(pixels(drawn) - pixels(usual)).max() > 1


class Inverted:
    def apply_watermark(self, values: torch.Tensor) -> torch.Tensor:
        return -values


def test_a_watermark_of_the_pipeline_is_applied(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    [drawn] = draw(pipe, requests(1)[:1])
    pipe.watermark = Inverted()
    [marked] = draw(pipe, requests(1)[:1])
    assert np.abs(pixels(marked) + pixels(drawn) - 255).max() <= 1


def test_neighbours_with_other_settings_are_drawn_apart(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    few, many = Request("a cat", 1, steps=1), Request("a cat", 1, steps=2)
    wide, not_blue = Request("a cat", 1, steps=1, width=64), Request("a cat", 1, "blue", steps=1)
    drawn = list(draw(pipe, [few, few, many, wide, not_blue], batch_size=8))
    assert [one.image.size for one in drawn] == [(32, 32)] * 3 + [(64, 32), (32, 32)]
    assert farthest(drawn[:1], drawn[1:2]) < ROUNDING
    assert farthest(drawn[:1], drawn[2:3]) > 0.01
    assert farthest(drawn[:1], drawn[4:]) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_drawing_leaves_the_pipeline_and_the_random_state_as_they_were(pipeline: Callable[..., Any], kind: str) -> None:
    pipe = pipeline(kind, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(desc="own")
    model = pipe.transformer if kind == "sd3" else pipe.unet
    model.train()
    next(model.children()).eval()
    before, config, scheduler = state(pipe), dict(pipe.config), pipe.scheduler
    settings = copy.deepcopy(vars(scheduler))
    torch.manual_seed(11)
    random_state = torch.get_rng_state()
    for _ in draw(pipe, requests(1)):
        assert state(pipe) == before  # between the pictures too
        assert torch.equal(torch.get_rng_state(), random_state)
    assert pipe.scheduler is scheduler
    assert str(vars(scheduler)) == str(settings)
    assert dict(pipe.config) == config
    assert pipe._progress_bar_config == {"desc": "own"}


def state(pipe: Any) -> dict[str, Any]:
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    modes = {(name, inner): module.training for name, part in parts.items() for inner, module in part.named_modules()}
    dtypes = {
        (name, inner): tensor.dtype for name, part in parts.items() for inner, tensor in part.state_dict().items()
    }
    return {"modes": modes, "dtypes": dtypes}


def test_dropout_is_off_while_drawing(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    [calm] = draw(pipe, requests(1)[:1])
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_out[1] = nn.Dropout(0.9)
    pipe.unet.train()
    [drawn] = draw(pipe, requests(1)[:1])
    assert torch.equal(calm.latents, drawn.latents)


def test_what_a_model_draws_at_random_itself_leaves_the_random_state_too(pipeline: Callable[..., Any]) -> None:
    pipe, drawn = pipeline("sdxl"), []
    pipe.unet.register_forward_hook(lambda *_: drawn.append(torch.rand(3)))
    state = torch.get_rng_state()
    list(draw(pipe, requests(1)[:1]))
    assert drawn
    assert torch.equal(torch.get_rng_state(), state)


def test_an_autoencoder_in_float32_decodes_what_a_model_in_16_bits_draws(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl", dtype=torch.bfloat16)
    [narrow] = draw(pipe, requests(1)[:1])
    pipe.vae = pipeline("sdxl").vae
    [drawn] = draw(pipe, requests(1)[:1])
    assert drawn.latents.dtype == torch.bfloat16
    assert torch.equal(drawn.latents, narrow.latents)
    assert 0 < np.abs(pixels(drawn) - pixels(narrow)).mean() < 3


def test_an_autoencoder_that_overflows_in_float16_decodes_in_float32(pipeline: Callable[..., Any]) -> None:
    pipe, seen = pipeline("sdxl"), []
    [expected] = draw(pipe, requests(1)[:1])
    pipe.vae = pipeline("sdxl", dtype=torch.float16).vae
    pipe.vae.decoder.register_forward_pre_hook(lambda module, _: seen.append(module.conv_in.weight.dtype))
    [drawn] = draw(pipe, requests(1)[:1])
    assert pipe.vae.config.force_upcast
    assert seen == [torch.float32]
    assert pipe.vae.dtype == torch.float16
    assert np.abs(pixels(drawn) - pixels(expected)).max() <= 2


def test_progress_counts_pictures_step_by_step(pipeline: Callable[..., Any]) -> None:
    seen: list[tuple[float, int]] = []
    drawn = draw(pipeline("sdxl"), requests(1), progress=lambda done, total: seen.append((done, total)))
    assert seen == []  # nothing is drawn before it is asked for
    next(drawn)
    assert seen == [(0.5, 2), (1.0, 2)]
    next(drawn)
    assert seen[2:] == [(1.5, 2), (2.0, 2)]


def test_values_that_are_no_numbers_name_prompt_and_seed(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sdxl")
    pipe.unet.conv_out.weight.data[0, 0] = torch.nan
    with pytest.raises(CheckpointError) as refusal:
        list(draw(pipe, requests(8), batch_size=2))
    assert "the model gives values that are no numbers for prompt 'a red cat' with seed 8" in str(refusal.value)
    pipe = pipeline("sdxl")
    pipe.vae.decoder.conv_out.bias.data[0] = torch.inf
    with pytest.raises(CheckpointError, match="the autoencoder gives values that are no numbers for prompt 'a red"):
        list(draw(pipe, requests(8)))


class Preprocessed(NamedTuple):
    pixel_values: torch.Tensor

    def to(self, _device: torch.device) -> "Preprocessed":
        return self


def test_a_picture_that_the_safety_checker_replaces_says_so(pipeline: Callable[..., Any]) -> None:
    pipe = pipeline("sd15")
    pipe.safety_checker = lambda images, clip_input: (images, [False, True])
    pipe.feature_extractor = lambda images, return_tensors: Preprocessed(torch.zeros(len(images), 3, 8, 8))
    shown, withheld = draw(pipe, requests(1), batch_size=2)
    assert not shown.is_withheld
    assert pixels(shown).max() > 0
    assert withheld.is_withheld
    assert pixels(withheld).max() == 0


def test_a_batch_size_of_zero_is_refused(pipeline: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="the batch size of drawing is 0; give at least 1"):
        next(draw(pipeline("sdxl"), requests(1), batch_size=0))
