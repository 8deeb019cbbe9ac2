"""Pictures: checked by their headers before a run, decoded to RGB during it, refused by name when something is wrong.

A picture is a path or the bytes of a file. Every message names the sample and the file. Transparent parts become white,
16-bit greyscale keeps its range, and a camera's rotation is applied, so that what the model sees is what a person sees.
"""

import base64
import binascii
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from moslora.data.colours import to_srgb
from moslora.errors import DataError

Picture = str | bytes  # the path of a file, or its content
Colour = tuple[int, int, int]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 89_478_485  # where Pillow starts to suspect a file made to exhaust the memory
GREY, WHITE = (128, 128, 128), (255, 255, 255)

_TAIL_BYTES = 4096
_LATE_CHUNKS = (b"eXIf", b"iTXt")  # a PNG may tell its rotation after its pixels
_SIDEWAYS = (5, 6, 7, 8)  # the orientations that swap width and height
_LEAVE_OUT = "or leave the sample out"


@dataclass(frozen=True)
class ImageHeader:
    """The size of a picture in pixels, as it stands after a camera's rotation."""

    width: int
    height: int


def check_image(image: Picture, *, place: str, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """The size of a picture that can be used, told from its header.

    Whether a JPEG, PNG or GIF is whole is seen by its end, and a WebP is by its header; pixels are decoded only where
    that leaves a doubt. Raises DataError naming `place`, the file and the next step for a picture that is missing, of
    no known format, broken or cut off, of more than `max_pixels` pixels (or twice Pillow's own bound), or of several
    frames.
    """
    with _opened(image, place=place, max_pixels=max_pixels) as (picture, stream):
        tail = _tail(stream)
        if not _ends_whole(picture, tail) or (picture.format == "PNG" and any(name in tail for name in _LATE_CHUNKS)):
            picture.load()
        exif = Image.Image.getexif(picture)  # the PNG class's own decodes the pixels first
        width, height = picture.size
        is_sideways = exif.get(ExifTags.Base.Orientation) in _SIDEWAYS
    return ImageHeader(height, width) if is_sideways else ImageHeader(width, height)


def open_image(image: Picture, *, place: str, max_pixels: int = MAX_PIXELS, is_for_people: bool = False) -> Image.Image:
    """The decoded picture in RGB, 8 bits a channel, of the size that `check_image` tells.

    Models see the stored numbers, as everywhere else; `is_for_people` converts them to sRGB by the file's own colour
    profile. Raises DataError as `check_image` does, for pixels of 32 bits, whose range nothing tells, and for people
    also for a profile that cannot be used.
    """
    with _opened(image, place=place, max_pixels=max_pixels) as (picture, _):
        picture.load()
        at = f"{place}: image {shown(image)}"
        profile = picture.info.get("icc_profile")
        upright = _to_8_bits(ImageOps.exif_transpose(picture), place=at)
        return _to_rgb(to_srgb(upright, profile, place=at) if is_for_people and profile else upright)


def content_hash(image: Picture, *, place: str) -> str:
    """The SHA-256 of a picture's file, in hexadecimal. Raises DataError naming `place` for one that cannot be read."""
    with _stream(image, f"{place}: image {shown(image)}") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def pad_to_square(image: Image.Image, colour: Colour) -> Image.Image:
    """The picture in the middle of a square as wide as its longer side; the rest has this RGB colour (0 to 255)."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def blank(size: tuple[int, int], *, colour: Colour = GREY) -> Image.Image:
    """A picture of one RGB colour, of a width and height in pixels: what is shown in place of a question's own."""
    return Image.new("RGB", size, colour)


def encoded(image: Image.Image) -> bytes:
    """The picture as the content of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def decoded(text: str, *, place: str) -> bytes:
    """The bytes that base64 text stands for. Raises DataError for other text."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise DataError(f"{place}: '{text[:24]}…' is not base64 ({error}); encode the picture again") from error


def shown(image: Picture) -> str:
    """How a message names a picture."""
    return f"'{image}'" if isinstance(image, str) else f"(embedded, {len(image):,} bytes)"


@contextmanager
def _opened(image: Picture, *, place: str, max_pixels: int) -> Iterator[tuple[Image.Image, BinaryIO]]:
    """A picture whose size and frames are allowed, not decoded yet; what fails in the block is a DataError too."""
    at = f"{place}: image {shown(image)}"
    try:
        with _strict_pillow(), _stream(image, at) as stream:
            picture = Image.open(stream, formats=FORMATS)
            _check_pixels(picture, at, max_pixels)
            _check_frames(picture, at)
            yield picture, stream
    except DataError:
        raise
    except UnidentifiedImageError as error:
        known = f"no picture of a known format (allowed: {', '.join(FORMATS)})"
        raise DataError(f"{at}: {known}, or cut off in its header; convert it, or fetch it again") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{at}: far too large ({error}); make it smaller, {_LEAVE_OUT}") from error
    except Exception as error:  # on damaged bytes the decoders raise errors of many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise DataError(f"{at}: broken or cut off ({reason}); fetch it again, {_LEAVE_OUT}") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow neither warns of what is refused or right here, nor fills up pictures that are cut off."""
    fills_up = ImageFile.LOAD_TRUNCATED_IMAGES  # other libraries set it for the whole process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = fills_up


def _stream(image: Picture, at: str) -> BinaryIO:
    if isinstance(image, bytes):
        return io.BytesIO(image)
    path = Path(image)
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{at}: no such file{_near(path)}; correct the path or the image folder") from error
    except IsADirectoryError as error:
        raise DataError(f"{at} is a folder; name a file in it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{at}: cannot be read ({reason}); check its name and permissions") from error


def _near(path: Path) -> str:
    """The same name with another ending, or one folder up; folders of pictures are too large to list."""
    others = (
        [path.with_suffix(ending) for suffix in ENDINGS for ending in (suffix, suffix.upper())] if path.name else []
    )
    found = [other for other in [*others, path.parent.parent / path.name] if other.is_file()]
    return f"; did you mean '{found[0]}'" if found else ""


def _check_pixels(picture: Image.Image, at: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise DataError(
            f"{at}: {width} x {height} pixels, at most {max_pixels:,} are allowed; make it smaller, {_LEAVE_OUT}"
        )


def _check_frames(picture: Image.Image, at: str) -> None:
    # A camera's MPO is a JPEG with previews behind the picture.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        frames = getattr(picture, "n_frames", "several")
        raise DataError(f"{at}: has {frames} frames, and only single pictures are read; save a single frame")


def _tail(stream: BinaryIO) -> bytes:
    place, end = stream.tell(), stream.seek(0, io.SEEK_END)
    stream.seek(max(0, end - _TAIL_BYTES))
    tail = stream.read()
    stream.seek(place)
    return tail


def _ends_whole(picture: Image.Image, tail: bytes) -> bool:
    """Whether the end of a file says that nothing is missing; where it does not, decoding tells."""
    if picture.format in ("JPEG", "MPO"):
        return b"\xff\xd9" in tail[-64:]
    if picture.format == "PNG":
        return b"IEND" in tail[-64:]
    if picture.format == "GIF":
        return tail.endswith(b";")
    return picture.format == "WEBP"


def _to_8_bits(picture: Image.Image, *, place: str) -> Image.Image:
    """The high byte of each pixel, as Pillow takes it of 16-bit colours; its own conversion of grey cuts at 255."""
    if picture.mode == "F":
        raise DataError(f"{place}: 32-bit pixels have no known range; save it with 8 or 16 bits")
    if not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise DataError(f"{place}: 32-bit pixels have no known range; save it with 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, WHITE), picture).convert("RGB")
    return picture.convert("RGB")
