"""Colours of a picture as a screen shows them: converted to sRGB by the profile that the picture's file holds."""

import io

from PIL import Image, ImageCms

from moslora.errors import DataError

_SRGB = ImageCms.createProfile("sRGB")
_PLAIN = ("L", "RGB", "CMYK")


def to_srgb(picture: Image.Image, profile: bytes, *, place: str) -> Image.Image:
    """A picture of 8 bits a channel by its ICC profile in sRGB, transparent where it was.

    Raises DataError naming `place` for a profile that cannot be read, or is of other colours than the picture.
    """
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    plain = _without_alpha(picture)
    try:
        found = ImageCms.profileToProfile(
            plain,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            _SRGB,
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (OSError, ImageCms.PyCMSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{place}: its colour profile cannot be used ({reason}); save the picture in sRGB") from error
    assert found is not None  # as it was not converted in place
    found.info.clear()
    if alpha is not None:
        found.putalpha(alpha)
    return found


def _without_alpha(picture: Image.Image) -> Image.Image:
    if picture.mode in ("1", "LA", "La"):
        return picture.convert("L")
    return picture if picture.mode in _PLAIN else picture.convert("RGB")
