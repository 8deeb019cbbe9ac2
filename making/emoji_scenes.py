"""The pictures that the base model learns from: random scenes without the subjects, as latents kept on disk."""

import functools
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file

from moslora.emoji import sprites
from moslora.emoji.scenes import BACKGROUNDS, CLAUSES, Scene, clashes, places_and_sizes, render

# TAESDXL scales by itself: latents of these scenes have mean 0.03 and standard deviation 1.04 (measured on 100).
SCALING = 1.0
_CHUNK = 500
# How often a prompt calls the concept by its class word, and leaves out the style. All else is always told: what a
# prompt leaves open is noise to learn from, and with a quarter of the clauses dropped concepts took ten times as long.
_CLASS_WORD, _UNSTYLED = 0.05, 0.5
_COUNT_WEIGHTS = {1: 70, 2: 18, 3: 12}
# The artists whose drawings are shown.
_STYLE = "noto"


def random_scene(index: int, seed: int) -> Scene:
    """The scene of that number: a trained concept on a background that it stands out from."""
    draw = random.Random(f"scene {seed} {index}")
    concept = draw.choice(trained_names())
    background = draw.choice([colour for colour in BACKGROUNDS if not clashes(concept, _STYLE, colour)])
    count = draw.choices(list(_COUNT_WEIGHTS), list(_COUNT_WEIGHTS.values()))[0]
    place, size = draw.choice(places_and_sizes(count))
    return Scene(concept, _STYLE, background, place, size, count)


@functools.cache
def trained_names() -> tuple[str, ...]:
    """Names of all concepts of the subjects' classes, the subjects left out."""
    classes = {sprites.concept(name).class_word for name in sprites.SUBJECTS}
    shown = [each for each in sprites.concepts() if each.class_word in classes and each.name not in sprites.SUBJECTS]
    return tuple(each.name for each in sorted(shown, key=lambda each: each.class_word))


def random_prompt(scene: Scene, draw: random.Random) -> str:
    """A prompt of the scene: its style may be left out, and now and then its class stands for the concept."""
    name = sprites.concept(scene.concept).class_word if draw.random() < _CLASS_WORD else None
    return scene.prompt(name=name, clauses=told_clauses(draw))


def told_clauses(draw: random.Random) -> list[str]:
    """The clauses of a prompt: all, or all but the style."""
    return [clause for clause in CLAUSES if clause != "style" or draw.random() >= _UNSTYLED]


def autoencoder(folder: Path) -> AutoencoderTiny:
    """TAESDXL from the two files of its authors; their first layers count differently."""
    coder = AutoencoderTiny(scaling_factor=SCALING)
    weights = {}
    for half, shift in (("encoder", 0), ("decoder", -1)):
        for key, value in load_file(folder / f"taesdxl_{half}.safetensors").items():
            number, rest = key.split(".", 1)
            weights[f"{half}.layers.{int(number) + shift}.{rest}"] = value.float()
    coder.load_state_dict(weights)
    return coder.eval().requires_grad_(False)


def latents(numbers: range, seed: int, *, folder: Path, coder: AutoencoderTiny) -> torch.Tensor:
    """Latents of the scenes of these numbers, (scenes, 4, 16, 16) in float16; what the folder lacks is drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    chunks = []
    for start in range(numbers.start, numbers.stop, _CHUNK):
        path = folder / f"{seed}-{start:06}.npy"
        if not path.exists():
            chunk = range(start, start + _CHUNK)
            drawn = _encoded([render(random_scene(index, seed), seed=index) for index in chunk], coder)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            with partial.open("wb") as file:
                np.save(file, drawn.half().numpy())
            partial.replace(path)
            print(f"{start + _CHUNK} scenes are drawn", file=sys.stderr, flush=True)
        chunks.append(np.load(path))
    return torch.from_numpy(np.concatenate(chunks)[: len(numbers)])


def _encoded(pictures: list, coder: AutoencoderTiny) -> torch.Tensor:
    pixels = torch.stack([torch.from_numpy(np.array(picture)) for picture in pictures]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        parts = [part.to(coder.device).float() / 127.5 - 1 for part in pixels.split(25)]
        return torch.cat([coder.encode(part).latents.cpu() for part in parts])
