"""The pipeline that the package ships: complete, small, credited, and as faithful as its rules need."""

import json

import numpy as np
import pytest
import torch

from making.emoji_export import LIMIT
from making.emoji_measure import through_autoencoder
from making.emoji_scenes import random_scene
from moslora.emoji import sprites
from moslora.emoji.reading import read
from moslora.emoji.scenes import render

PACKAGE = sprites.FOLDER.parent
FOLDER = PACKAGE / "pipeline"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the pipeline's weights are not in this copy")


@pytest.fixture(scope="module")
def shipped():
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(FOLDER, dtype=torch.float32, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_all_package_data_together_is_small():
    assert sum(path.stat().st_size for path in PACKAGE.rglob("*") if path.is_file()) < LIMIT


def test_credits_and_measures_are_those_of_these_weights():
    told = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
    assert f"{told['step']:,} steps" in (FOLDER / "CREDITS.md").read_text(encoding="utf-8")
    assert "MIT License" in (FOLDER / "vae" / "LICENSE.txt").read_text(encoding="utf-8")
    figures = json.loads((FOLDER / "measures.json").read_text(encoding="utf-8"))
    assert figures["step"] == told["step"]
    assert min(figures["ceiling"][question] for question in ("background", "place", "size", "count")) >= 0.97


def test_the_rules_read_real_scenes_through_its_autoencoder(shipped):
    scenes = [random_scene(number, 3) for number in range(40)]
    found = [read(picture) for picture in through_autoencoder(shipped, [render(scene) for scene in scenes])]
    for question in ("background", "place", "size", "count"):
        answers = [getattr(one, question) == getattr(scene, question) for one, scene in zip(found, scenes, strict=True)]
        assert np.mean(answers) >= 0.95, question


def test_its_text_encoders_tell_prompts_apart(shipped):
    first, second = (
        shipped.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
        for prompt in ("a photo of a dog on a red background", "a photo of a dog on a blue background")
    )
    assert (first[0] - second[0]).abs().max() > 0.1
    assert (first[2] - second[2]).abs().max() > 0.1
