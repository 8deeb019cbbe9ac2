"""From a photo to the square, or the other shape, that a model is trained on, and the sizes that SDXL is told."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from moslora.data.images import ImageHeader

Shape = tuple[int, int]  # width, height in pixels
STEEPEST = 2.0  # the longest side of a bucket as a multiple of its shortest


class Cut(NamedTuple):
    """Where a photo is cut: at which left and top of the photo once it is resized to `resized`."""

    resized: Shape
    left: int
    top: int
    is_flipped: bool = False


def buckets(resolution: int, *, step: int) -> list[Shape]:
    """The shapes of at most `resolution`² pixels whose sides are multiples of `step`, from upright to lying.

    No side is longer than twice the other one. The square is always among them.
    """
    found = {(resolution, resolution)}
    for width in range(step, math.floor(resolution * math.sqrt(STEEPEST)) + step, step):
        height = resolution * resolution // width // step * step
        if height >= step and max(width, height) <= STEEPEST * min(width, height):
            found.add((width, height))
    return sorted(found, key=lambda shape: shape[0] / shape[1])


def nearest_bucket(header: ImageHeader, shapes: Sequence[Shape]) -> Shape:
    """The shape whose ratio of width to height is nearest to the photo's."""
    ratio = math.log(header.width / header.height)
    return min(shapes, key=lambda shape: abs(math.log(shape[0] / shape[1]) - ratio))


def cut_for(
    header: ImageHeader,
    shape: Shape,
    *,
    generator: torch.Generator | None = None,
    is_random: bool = False,
    may_flip: bool = False,
) -> Cut:
    """Where to cut a photo, resized until it just covers `shape`: in its middle, or where the generator says.

    The generator is drawn from three times, whatever is asked for, so that one setting changes nothing of another.
    """
    scale = max(shape[0] / header.width, shape[1] / header.height)
    resized = (max(shape[0], round(header.width * scale)), max(shape[1], round(header.height * scale)))
    room = (resized[0] - shape[0], resized[1] - shape[1])
    across, down, flip = torch.rand(3, generator=generator).tolist() if generator is not None else (0.5, 0.5, 1.0)
    if not is_random:
        across = down = 0.5
    return Cut(resized, round(room[0] * across), round(room[1] * down), may_flip and flip < 0.5)


def cut_out(image: Image.Image, cut: Cut, shape: Shape) -> torch.Tensor:
    """The part of a photo, (3, height, width) from -1 to 1; it is mirrored before it is cut."""
    resized = image.resize(cut.resized, Image.Resampling.LANCZOS)
    if cut.is_flipped:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    part = resized.crop((cut.left, cut.top, cut.left + shape[0], cut.top + shape[1]))
    return as_tensor(part)


def as_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB picture as an autoencoder takes it, (3, height, width) from -1 to 1."""
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1).contiguous()


def told_sizes(header: ImageHeader, cut: Cut, shape: Shape) -> list[int]:
    """What SDXL is told: height and width of the photo, top and left of the cut, height and width of the shape."""
    return [header.height, header.width, cut.top, cut.left, shape[1], shape[0]]
