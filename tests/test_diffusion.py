"""The tiny pipelines that the tests draw with are what diffusers takes for real ones."""

import logging

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.diffusion import tiny_flux, tiny_sd3, tiny_sd15, tiny_sdxl

MAKERS = {
    "StableDiffusionXLPipeline": tiny_sdxl,
    "StableDiffusionPipeline": tiny_sd15,
    "StableDiffusion3Pipeline": tiny_sd3,
    "FluxPipeline": tiny_flux,
}


def draw(pipe, prompt, output_type="latent"):
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(0)
    options = {"num_inference_steps": 2, "height": 32, "width": 32, "generator": noise, "output_type": output_type}
    return pipe(prompt, **options).images


@pytest.fixture
def heard(caplog):
    """What diffusers logs, at warnings and above."""
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("name", MAKERS)
def test_a_tiny_pipeline_loads_from_its_folder_and_draws_what_the_prompt_says(name, tmp_path, heard):
    pipe = DiffusionPipeline.from_pretrained(MAKERS[name](tmp_path))
    assert type(pipe).__name__ == name
    assert not [record.message for record in heard.records if "Expected types" in record.message]
    cat, same_cat, dog = (draw(pipe, f"a photo of a {word}") for word in ("cat", "cat", "dog"))
    assert cat.shape == ((1, 64, 16) if name == "FluxPipeline" else (1, 4, 16, 16))
    assert torch.equal(cat, same_cat)
    assert (cat - dog).abs().max() > 1e-2
    assert draw(pipe, "a photo of a cat", "pil")[0].size == (32, 32)


@pytest.mark.parametrize("name", MAKERS)
def test_one_seed_writes_one_and_the_same_pipeline(name, tmp_path):
    folders = [MAKERS[name](tmp_path / str(number), seed=seed) for number, seed in enumerate((3, 3, 4))]
    first, again, other = (draw(DiffusionPipeline.from_pretrained(folder), "a") for folder in folders)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_prompts_are_pooled_differently(tmp_path):
    """With an end token that is not the tokenizer's, the pooled vector is that of the first position for both."""
    pipe = DiffusionPipeline.from_pretrained(tiny_sdxl(tmp_path))
    tokens = pipe.tokenizer_2(["a cat", "a small dog"], padding="max_length", return_tensors="pt")
    cat, dog = pipe.text_encoder_2(**tokens).text_embeds
    assert (cat - dog).abs().max() > 1e-2


def test_the_tiny_autoencoder_is_read_although_diffusers_expected_another(tmp_path, heard):
    pipe = DiffusionPipeline.from_pretrained(tiny_sdxl(tmp_path, autoencoder="tiny"))
    assert type(pipe.vae).__name__ == "AutoencoderTiny"
    assert "Expected types for vae" in heard.text
    assert draw(pipe, "a photo of a cat", "pil")[0].size == (32, 32)
