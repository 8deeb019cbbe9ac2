"""Pictures made alike: nothing but the pixels tells two of one pair apart.

Each is written anew as PNG, in sRGB and without anything else that its file said; those of one pair get the same width,
height and length in bytes.
"""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageOps

from moslora.data.images import open_image
from moslora.errors import DataError

LONGEST_PIXELS = 1536  # more than a screen shows of two pictures side by side
PHOTO_PIXELS = 768
SHAPE_TOLERANCE = 0.01  # of width / height

_END = 12  # bytes of a PNG's last chunk
_PADDING = b"paDd"  # private, safe to copy, and of no meaning to a reader


def alike(paths: Sequence[Path], *, name: str) -> list[bytes]:
    """Pictures of one pair as PNG files of one width, height and length: the smallest one's size, at most 1536 pixels.

    Raises DataError for a picture, or its colour profile, that cannot be read, and for pictures of different shapes.
    """
    images = [open_image(str(path), place=name, is_for_people=True) for path in paths]
    shapes = [image.width / image.height for image in images]
    if max(shapes) / min(shapes) > 1 + SHAPE_TOLERANCE:
        sizes = [f"{image.width} x {image.height} ({path})" for image, path in zip(images, paths, strict=True)]
        raise DataError(
            f"the answers to '{name}' differ in shape, which tells them apart: {', '.join(sizes)}; draw one shape"
        )
    size = _at_most(min((image.size for image in images), key=lambda size: size[0] * size[1]), LONGEST_PIXELS)
    return padded([_png(ImageOps.fit(image, size, Image.Resampling.LANCZOS)) for image in images])


def photo(path: Path) -> bytes:
    """A subject's photo as a PNG file of at most 768 pixels. Raises DataError for one that cannot be read."""
    image = open_image(str(path), place="photos", is_for_people=True)
    return _png(image.resize(_at_most(image.size, PHOTO_PIXELS), Image.Resampling.LANCZOS))


def padded(files: Sequence[bytes]) -> list[bytes]:
    """PNG files filled up to one length, by a chunk of zeros before the end that readers pass over."""
    longest = max(len(file) for file in files)
    return [file[:-_END] + _chunk(longest - len(file)) + file[-_END:] for file in files]


def _chunk(zeros: int) -> bytes:
    content = _PADDING + bytes(zeros)
    return zeros.to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


def _at_most(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    share = min(1.0, pixels / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _png(image: Image.Image) -> bytes:
    """The pixels alone: what `image.info` holds, such as a colour profile, is not written."""
    bare = Image.frombytes("RGB", image.size, image.tobytes())
    stream = io.BytesIO()
    bare.save(stream, "PNG")
    return stream.getvalue()
