"""Which concept a picture shows: the nearest of all sprites, by features that the caller chooses. Chance is 1 in N."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from moslora.emoji import sprites
from moslora.emoji.reading import copy_boxes, thing_mask

# Pictures, RGBA and square, to one row of numbers each, (pictures, width).
Features = Callable[[Sequence[Image.Image]], np.ndarray]
# Pixels: the side of a cut-out and the margin on each of its sides.
CUT_OUT, _MARGIN = 96, 6
# Values a channel of the colour histogram is sorted into.
_BINS = 8


class Gallery:
    """All sprites as one sort of features sees them, to compare pictures with."""

    def __init__(self, features: Features, *, styles: Sequence[str] = sprites.STYLES) -> None:
        """Features of every concept's sprite in these styles are taken once."""
        self._features = features
        shown = [(each.name, style) for style in styles for each in sprites.concepts()]
        self._names = [name for name, _ in shown]
        self._rows = _unit(features([_framed(sprites.sprite(name, style)) for name, style in shown]))

    def ranked(self, picture: Image.Image) -> list[str]:
        """Names of all concepts, the nearest first, by cosine; no name if the picture is empty."""
        thing = cut_out(picture)
        if thing is None:
            return []
        nearness = self._rows @ _unit(self._features([thing]))[0]
        return list(dict.fromkeys(self._names[index] for index in np.argsort(-nearness, kind="stable")))

    def nearest(self, picture: Image.Image) -> str | None:
        """The name of the concept that the picture's thing is nearest to; None if the picture is empty."""
        return next(iter(self.ranked(picture)), None)


def cut_out(picture: Image.Image) -> Image.Image | None:
    """The first copy of the thing, an RGBA square of `CUT_OUT` pixels, clear where the background was; None if none."""
    mask = thing_mask(picture)
    if not mask.any():
        return None
    box = copy_boxes(mask)[0]
    thing = picture.convert("RGB").convert("RGBA")
    thing.putalpha(Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)))
    return _framed(thing.crop(box))


def colour_histogram(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Share of each of 8 × 8 × 8 colours in what is drawn, as square roots: their dot product is Bhattacharyya's.

    A colour between two values counts for both, so that slight shifts change little.
    """
    return np.stack([_histogram(np.asarray(picture, float)) for picture in pictures])


def _histogram(pixels: np.ndarray) -> np.ndarray:
    weights = pixels[..., 3].ravel()
    position = pixels[..., :3].reshape(-1, 3) / 255 * (_BINS - 1)
    low = np.minimum(position.astype(int), _BINS - 2)
    part = position - low
    counts = np.zeros(_BINS**3)
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(corner, part, 1 - part), axis=1)
        index = np.ravel_multi_index(tuple((low + corner).T), (_BINS,) * 3)
        counts += np.bincount(index, weights * share, minlength=_BINS**3)
    return np.sqrt(counts / max(counts.sum(), 1e-12))


def _framed(thing: Image.Image) -> Image.Image:
    scale = (CUT_OUT - 2 * _MARGIN) / max(thing.size)
    thing = thing.resize([max(1, round(side * scale)) for side in thing.size], Image.Resampling.BILINEAR)
    frame = Image.new("RGBA", (CUT_OUT, CUT_OUT))
    frame.paste(thing, ((CUT_OUT - thing.width) // 2, (CUT_OUT - thing.height) // 2))
    return frame


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
