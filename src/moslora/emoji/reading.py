"""Rules that read a scene from a picture: the background from the border, the rest from what differs from it."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from moslora.emoji.scenes import BACKGROUNDS, PLACES, SIZES

# Steps of 255: a border further from every background has no name; a pixel nearer to the border's colour belongs to it.
_FARTHEST_BACKGROUND, _NEAREST_THING = 60, 45
# Shares of the picture's side: the border's width, the gap that parts two copies, the distance kept from the border.
_BORDER, _GAP, _MARGIN = 0.024, 0.024, 0.03
# Shares of the picture: a smaller speck is noise; less than this in all is an empty picture.
_SPECK, _EMPTY = 0.0007, 0.004
# Copies are alike: the narrowest is at least this share of the widest.
_ALIKE = 0.6
# A size off by more than this factor from every name has none.
_FARTHEST_SIZE = 1.35
# Share of the picture's side, and of the way to the border: what is moved further is no longer in the centre.
_LEAST_MOVE, _HALF_WAY = 0.05, 0.5


@dataclass(frozen=True)
class Reading:
    """What the rules find; None where none of the names fits."""

    background: str | None
    place: str | None
    size: str | None
    count: int | None


def read(picture: Image.Image) -> Reading:
    """Read background, place, size and count from a square picture of any size."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    mask = thing_mask(picture)
    if mask.mean() < _EMPTY:
        return Reading(_background(pixels), None, None, None)
    copies = _copies(mask)
    rows, columns = _span(mask, axis=1), _span(mask, axis=0)
    width = sum(stop - start for start, stop in copies) / len(copies)
    longest = max(width, rows[1] - rows[0]) / len(mask)
    return Reading(_background(pixels), _place(rows, columns, len(mask)), _size(longest), len(copies))


def thing_mask(picture: Image.Image) -> np.ndarray:
    """Where a picture differs from its border's colour, (height, width) of booleans without specks."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    mask = np.abs(pixels - _border_colour(pixels)).max(axis=-1) > _NEAREST_THING
    labels = np.empty(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), output=labels)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return (areas >= _SPECK * mask.size)[labels]


def copy_boxes(mask: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Left, top, right and bottom of each copy in a mask that is not empty, from left to right."""
    boxes = []
    for start, stop in _copies(mask):
        top, bottom = _span(mask[:, start:stop], axis=1)
        boxes.append((start, top, stop, bottom))
    return boxes


def _border_colour(pixels: np.ndarray) -> np.ndarray:
    width = max(1, round(_BORDER * len(pixels)))
    inside = np.zeros(pixels.shape[:2], bool)
    inside[width:-width, width:-width] = True
    return np.median(pixels[~inside], axis=0)


def _background(pixels: np.ndarray) -> str | None:
    colour = _border_colour(pixels)
    distances = {name: np.linalg.norm(colour - values) for name, values in BACKGROUNDS.items()}
    nearest = min(distances, key=lambda name: distances[name])
    return nearest if distances[nearest] <= _FARTHEST_BACKGROUND else None


def _copies(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last column of each copy: what empty columns part, if the parts are alike; else the whole is one."""
    filled = np.flatnonzero(mask.any(axis=0))
    breaks = np.flatnonzero(np.diff(filled) > _GAP * len(mask))
    starts, stops = filled[[0, *(breaks + 1)]], filled[[*breaks, -1]] + 1
    widths = stops - starts
    if widths.min() < _ALIKE * widths.max():
        return [(int(filled[0]), int(filled[-1]) + 1)]
    return [(int(start), int(stop)) for start, stop in zip(starts, stops, strict=True)]


def _span(mask: np.ndarray, *, axis: int) -> tuple[int, int]:
    """First and last of the rows (axis 1) or columns (axis 0) that hold something; the last is not included."""
    indices = np.flatnonzero(mask.any(axis=axis))
    return int(indices[0]), int(indices[-1]) + 1


def _size(longest: float) -> str | None:
    """The name whose share of the side is nearest, in ratio; None if it is off by too much."""
    ratios = {name: abs(np.log(longest / share)) for name, share in SIZES.items()}
    nearest = min(ratios, key=lambda name: ratios[name])
    return nearest if ratios[nearest] < np.log(_FARTHEST_SIZE) else None


def _place(rows: tuple[int, int], columns: tuple[int, int], side: int) -> str | None:
    across, down = _move(columns, side), _move(rows, side)
    steps = (int(np.sign(across)), int(np.sign(down)))
    return next((name for name, step in PLACES.items() if step == steps), None)


def _move(span: tuple[int, int], side: int) -> float:
    """How far the middle lies from the picture's middle, as a share of its side; 0 if less than half of the way."""
    move = (span[0] + span[1]) / 2 / side - 0.5
    reach = 0.5 - (span[1] - span[0]) / 2 / side - _MARGIN
    return move if abs(move) > max(_LEAST_MOVE, _HALF_WAY * reach) else 0.0
