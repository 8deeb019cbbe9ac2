"""Scenes of emoji: one to three copies of a concept on a plain background, told in words and drawn from a seed."""

import functools
import random
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moslora.emoji import sprites
from moslora.errors import ConfigError

# Red, green, blue; clear of the artists' own palettes, so that few sprites vanish into a background.
BACKGROUNDS = {
    "red": (205, 70, 72),
    "yellow": (250, 222, 110),
    "green": (62, 150, 98),
    "blue": (62, 112, 196),
    "purple": (120, 82, 172),
    "pink": (247, 176, 204),
    "white": (246, 246, 244),
    "black": (24, 24, 28),
}
# Where the middle of what is drawn lies: steps from the picture's middle to the right and down.
PLACES = {"left": (-1, 0), "right": (1, 0), "centre": (0, 0), "top": (0, -1), "bottom": (0, 1)}
# The longer side of one copy, as a share of the picture's side.
SIZES = {"small": 0.27, "medium": 0.43, "large": 0.66}
COUNTS = (1, 2, 3)
# What the grammar may leave out, in the order in which it is told; a count above one is always told.
CLAUSES = ("background", "size", "place", "style")

_PLACE_WORDS = {"left": "at the left", "right": "at the right", "centre": "in the centre", "top": "at the top"}
_PLACE_WORDS["bottom"] = "at the bottom"
_COUNT_WORDS = {2: "two of them", 3: "three of them"}
# Shares of the picture's side: the gap between copies, and the least distance from the border.
_GAP, _MARGIN = 0.055, 0.03
# How far a seed moves each of the background's values, in steps of 255.
_SHADE = 5


@dataclass(frozen=True)
class Scene:
    """What a picture shows. Two or three copies stand side by side, so they are never left, right or too large."""

    concept: str
    style: str = "noto"
    background: str = "white"
    place: str = "centre"
    size: str = "medium"
    count: int = 1

    def __post_init__(self) -> None:
        sprites.concept(self.concept)
        allowed = {"style": sprites.STYLES, "background": BACKGROUNDS, "place": PLACES, "size": SIZES, "count": COUNTS}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(map(str, values))}")
        if (self.place, self.size) not in places_and_sizes(self.count):
            raise ConfigError(
                f"{self.count} copies, {self.size}, {self.place} do not fit in the picture;"
                " choose a smaller size or count"
            )

    def prompt(self, *, name: str | None = None, clauses: Collection[str] = CLAUSES) -> str:
        """The scene in words, the thing called `name` (by default its concept), only these clauses told."""
        words = name or self.concept
        told = f"a photo of {'an' if words[0] in 'aeiou' else 'a'} {words}"
        if "background" in clauses:
            told += f" on a {self.background} background"
        later = {"size": self.size, "place": _PLACE_WORDS[self.place], "style": f"in {self.style} style"}
        told = ", ".join([told, *(words for clause, words in later.items() if clause in clauses)])
        return told if self.count == 1 else f"{told}, {_COUNT_WORDS[self.count]}"


@functools.cache
def places_and_sizes(count: int) -> tuple[tuple[str, str], ...]:
    """Where and how large that many copies fit into a picture."""
    places = list(PLACES) if count == 1 else ["centre", "top", "bottom"]
    sizes = {1: list(SIZES), 2: ["small", "medium"], 3: ["small"]}[count]
    return tuple((place, size) for place in places for size in sizes)


def render(scene: Scene, *, size: int = 128, seed: int = 0) -> Image.Image:
    """Draw a scene as an RGB picture of `size` × `size` pixels; the seed varies the background's shade alone."""
    draw = random.Random(f"{scene} {seed}")
    shade = tuple(_clip(value + draw.randint(-_SHADE, _SHADE)) for value in BACKGROUNDS[scene.background])
    picture = Image.new("RGB", (size, size), shade)
    drawing = sprites.sprite(scene.concept, scene.style)
    scale = SIZES[scene.size] * size / max(drawing.size)
    drawing = drawing.resize([max(1, round(length * scale)) for length in drawing.size], Image.Resampling.LANCZOS)
    gap = round(_GAP * size)
    width = scene.count * (drawing.width + gap) - gap
    right, down = PLACES[scene.place]
    left, top = _start(right, width, size), _start(down, drawing.height, size)
    for copy in range(scene.count):
        picture.paste(drawing, (left + copy * (drawing.width + gap), top), drawing)
    return picture


def clashes(name: str, style: str, background: str) -> bool:
    """Whether so much of a sprite has the background's colour that its outline cannot be read."""
    return background in _clashing(name, style)


def _start(step: int, length: int, size: int) -> int:
    """First pixel of something of that length: near the border that `step` points to, or in the middle at 0."""
    middle = (size - length) / 2
    return round(middle + step * max(0, middle - _MARGIN * size))


def _clip(value: int) -> int:
    return min(max(value, 0), 255)


@functools.cache
def _clashing(name: str, style: str) -> frozenset[str]:
    pixels = np.asarray(sprites.sprite(name, style)).astype(int)
    solid = pixels[..., 3] > 127
    return frozenset(
        colour
        for colour, values in BACKGROUNDS.items()
        if _hides(solid, np.abs(pixels[..., :3] - values).max(axis=-1) < 60)
    )


def _hides(solid: np.ndarray, alike: np.ndarray) -> bool:
    seen = solid & ~alike
    if seen.sum() < 0.6 * solid.sum():
        return True
    spans = [np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1) for mask in (seen, solid)]
    return bool(spans[0] < 0.93 * spans[1] or spans[2] < 0.93 * spans[3])
