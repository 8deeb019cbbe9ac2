"""What a pipeline draws, measured by rule: are prompts obeyed, is the concept recognised; ceiling and floor."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from making.emoji_scenes import random_scene
from moslora.emoji import sprites
from moslora.emoji.identity import Gallery, colour_histogram
from moslora.emoji.reading import read
from moslora.emoji.scenes import Scene, render
from moslora.emoji.subjects import evaluation_scenes

STEPS, GUIDANCE = 25, 2.0
# Scenes are measured from this number on, which neither training nor its validation reaches.
_FIRST = 2 * 10**6
_BATCH, _SHOWN, _ROW = 20, 48, 12
_QUESTIONS = ("background", "place", "size", "count")


def measure(
    pipeline: StableDiffusionXLPipeline, *, trained: int = 120, each: int = 5, seed: int = 0
) -> tuple[dict, Image.Image]:
    """Shares of pictures that are right, by question, and a sheet of the first drawings with their real scenes above.

    `drawn` are `trained` prompts of trained concepts, `ceiling` the same scenes rendered and passed through the
    autoencoder, `held_out` are `each` prompts of every subject by its name, which the base model has never seen.
    """
    pipeline.set_progress_bar_config(disable=True)
    known = [random_scene(number, seed) for number in range(_FIRST, _FIRST + trained)]
    unknown = [scene for name in sprites.SUBJECTS for scene in evaluation_scenes(name, count=each)]
    gallery = Gallery(colour_histogram)
    drawn = draw(pipeline, [scene.prompt() for scene in known], seed=seed)
    coded = through_autoencoder(pipeline, [render(scene, seed=seed) for scene in known])
    guessed = draw(pipeline, [scene.prompt() for scene in unknown], seed=seed)
    figures = {
        "drawn": shares_right(drawn, known, gallery),
        "ceiling": shares_right(coded, known, gallery),
        "held_out": shares_right(guessed, unknown, gallery),
        "sampling": {"steps": STEPS, "guidance": GUIDANCE, "seed": seed, "concepts": len(sprites.concepts())},
    }
    return figures, _sheet([row for pair in zip(_rows(coded), _rows(drawn), strict=True) for row in pair])


@torch.inference_mode()
def draw(pipeline: StableDiffusionXLPipeline, prompts: list[str], *, seed: int) -> list[Image.Image]:
    """One picture a prompt, each from its own generator."""
    pictures = []
    for start in range(0, len(prompts), _BATCH):
        told = prompts[start : start + _BATCH]
        noise = [torch.Generator().manual_seed(seed + start + index) for index in range(len(told))]
        pictures += pipeline(told, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise).images
    return pictures


@torch.inference_mode()
def through_autoencoder(pipeline: StableDiffusionXLPipeline, pictures: list[Image.Image]) -> list[Image.Image]:
    """What is left of pictures after encoding and decoding: no drawing of these latents can be better."""
    coded = []
    for picture in pictures:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latents).sample
        coded += pipeline.image_processor.postprocess(decoded, output_type="pil")
    return coded


def shares_right(pictures: list[Image.Image], scenes: list[Scene], gallery: Gallery) -> dict[str, float]:
    """Share of pictures on which the rules and the gallery find what the scene says, by question."""
    right: dict[str, int] = {}
    for picture, scene in zip(pictures, scenes, strict=True):
        found, names = read(picture), gallery.ranked(picture)
        answers = {question: getattr(found, question) == getattr(scene, question) for question in _QUESTIONS}
        answers |= {f"colours: concept in first {first}": scene.concept in names[:first] for first in (1, 5)}
        right = {question: right.get(question, 0) + answer for question, answer in answers.items()}
    return {"pictures": len(pictures)} | {question: round(n / len(pictures), 3) for question, n in right.items()}


def _rows(pictures: list[Image.Image]) -> list[list[Image.Image]]:
    return [pictures[start : start + _ROW] for start in range(0, min(_SHOWN, len(pictures)), _ROW)]


def _sheet(rows: list[list[Image.Image]]) -> Image.Image:
    side = rows[0][0].width + 2
    sheet = Image.new("RGB", (side * len(rows[0]), side * len(rows)))
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            sheet.paste(picture, (across * side, down * side))
    return sheet


def save(folder: Path, figures: dict, sheet: Image.Image) -> None:
    """Write `measures.json`, with the step of the weights, and `sheet.webp`."""
    figures = {"step": json.loads((folder / "training.json").read_text(encoding="utf-8"))["step"], **figures}
    (folder / "measures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    sheet.save(folder / "sheet.webp", quality=85)
