"""The held-out concepts as subjects of tuning: a few pictures to learn each from, and scenes to ask for afterwards."""

import itertools
import random

from PIL import Image

from moslora.emoji import sprites
from moslora.emoji.scenes import BACKGROUNDS, COUNTS, Scene, clashes, places_and_sizes, render
from moslora.errors import ConfigError

# The artists whose drawing of a subject is to be learned, and the word that will stand for it.
STYLE, IDENTIFIER = "noto", "sks"
# Clauses that a subject's captions tell: its style is part of what is to be learned.
CLAUSES = ("background", "size", "place")


def subject_scenes(concept: str, *, count: int = 5, seed: int = 0) -> list[tuple[Image.Image, Scene]]:
    """Pictures to learn a concept from, 128 pixels square, each with its scene: one thing, never small."""
    draw = random.Random(f"subject {concept} {seed}")
    backgrounds = itertools.cycle(_shuffled(_backgrounds(concept), draw))
    shown = itertools.cycle(_shuffled([pair for pair in places_and_sizes(1) if pair[1] != "small"], draw))
    scenes = [Scene(concept, STYLE, next(backgrounds), place, size) for place, size in itertools.islice(shown, count)]
    return [(render(scene, seed=seed + index), scene) for index, scene in enumerate(scenes)]


def evaluation_scenes(concept: str, *, count: int = 25, seed: int = 0) -> list[Scene]:
    """Scenes to ask for: every place, size and number of copies in turn, none of them a picture of that seed."""
    draw = random.Random(f"evaluation {concept} {seed}")
    learned = {scene for _, scene in subject_scenes(concept, seed=seed)}
    told = _shuffled([(pair, copies) for copies in COUNTS for pair in places_and_sizes(copies)], draw)
    colours = _shuffled(_backgrounds(concept), draw)
    scenes = [
        Scene(concept, STYLE, colours[(index + turn) % len(colours)], place, size, copies)
        for turn in range(len(colours))
        for index, ((place, size), copies) in enumerate(told)
    ]
    scenes = [scene for scene in scenes if scene not in learned]
    if count > len(scenes):
        raise ConfigError(f"count is {count}; {concept} has {len(scenes)} scenes, ask for fewer")
    return scenes[:count]


def subject_prompt(scene: Scene, *, identifier: str = IDENTIFIER) -> str:
    """The scene in words, its concept called by the identifier and the class word: "a photo of a sks bird on a …"."""
    return scene.prompt(name=f"{identifier} {sprites.concept(scene.concept).class_word}", clauses=CLAUSES)


def _backgrounds(concept: str) -> list[str]:
    return [colour for colour in BACKGROUNDS if not clashes(concept, STYLE, colour)]


def _shuffled(values: list, draw: random.Random) -> list:
    return draw.sample(values, len(values))
