"""The subjects that come with the package: emoji that its own text-to-image model was trained without."""

from collections.abc import Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image

from moslora.data.images import ImageHeader, encoded
from moslora.data.photos import Photo
from moslora.emoji import sprites
from moslora.emoji.identity import Gallery, colour_histogram
from moslora.emoji.reading import read
from moslora.emoji.scenes import BACKGROUNDS, COUNTS, PLACES, SIZES, Scene
from moslora.emoji.subjects import IDENTIFIER, evaluation_scenes, subject_prompt, subject_scenes
from moslora.errors import unknown_name
from moslora.evaluation.features import Features
from moslora.painting.prompts import Prompt

PROMPTS = 25
RULES = MappingProxyType(
    {
        "background": "the border's colour is the one asked for",
        "place": "the thing stands where it was asked to",
        "size": "the thing is as large as asked for",
        "count": "there are as many copies as asked for",
        "identity-by-colour": "of all concepts, the subject's drawing has the nearest colours",
        "identity-by-features": "of all concepts, the subject's drawing has the nearest features",
    }
)

# How many values a rule chooses from: what guessing gets is one in as many.
CHOICES = MappingProxyType(
    {
        "background": len(BACKGROUNDS),
        "place": len(PLACES),
        "size": len(SIZES),
        "count": len(COUNTS),
        "identity-by-colour": len(sprites.concepts()),
        "identity-by-features": len(sprites.concepts()),
    }
)


def emoji_photos(name: str, *, prompt: str | None = None) -> list[Photo]:
    """Five scenes with a subject, as pictures in memory, captioned by what they show or by one `prompt`."""
    _check(name)
    return [
        Photo(encoded(picture), prompt or subject_prompt(scene), f"{name} {number}", ImageHeader(*picture.size))
        for number, (picture, scene) in enumerate(subject_scenes(name))
    ]


def emoji_prompts(name: str) -> tuple[list[Prompt], list[Any]]:
    """Scenes to ask for, in words, and as what rules read."""
    _check(name)
    scenes = evaluation_scenes(name, count=PROMPTS)
    return [Prompt(subject_prompt(scene), _plain(scene)) for scene in scenes], scenes


def _plain(scene: Scene) -> str:
    """The prompt of a scene without the identifier."""
    return subject_prompt(scene).replace(f"{IDENTIFIER} ", "")


def read_scenes(
    rule: str, scenes: Sequence[Any], images: Sequence[Image.Image], *, features: Features | None = None
) -> list[bool]:
    """Whether each picture shows what its scene says, by the rule of this name."""
    if rule in ("background", "place", "size", "count"):
        return [getattr(read(image), rule) == getattr(scene, rule) for scene, image in zip(scenes, images, strict=True)]
    gallery = _by_colour() if features is None else _by_features(features)
    return [gallery.nearest(image) == scene.concept for scene, image in zip(scenes, images, strict=True)]


@lru_cache(maxsize=1)
def _by_colour() -> Gallery:
    return Gallery(colour_histogram)


@lru_cache(maxsize=2)
def _by_features(features: Features) -> Gallery:
    def vectors(pictures: Sequence[Image.Image]) -> np.ndarray:
        flat = [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in pictures]
        return features.pictures(flat)

    return Gallery(vectors)


def _check(name: str) -> None:
    if name not in sprites.SUBJECTS:
        raise unknown_name("subject of emoji:", name, sprites.SUBJECTS)
