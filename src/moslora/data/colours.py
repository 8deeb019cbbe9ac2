"""Colours of a picture as a screen shows them: converted to sRGB by the profile that the picture's file holds."""

import io
from typing import Any, cast

from PIL import Image, ImageCms

from moslora.errors import DataError

_SRGB = ImageCms.createProfile("sRGB")


def to_srgb(picture: Image.Image, profile: bytes, *, place: str) -> Image.Image:
    """A picture of 8 bits a channel by its ICC profile in sRGB, transparent where it was.

    Raises DataError naming `place` for a profile that cannot be read, or is of other colours than the picture.
    """
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    try:
        meant = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        found = ImageCms.profileToProfile(
            _without_alpha(picture, is_of_rgb=cast(Any, meant.profile).xcolor_space.strip() == "RGB"),
            meant,
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


def _without_alpha(picture: Image.Image, *, is_of_rgb: bool) -> Image.Image:
    """In a mode that a profile can be of; grey is a colour like others to a profile of RGB."""
    is_grey = picture.mode in ("1", "L", "LA", "La")
    if is_grey and not is_of_rgb:
        return picture.convert("L")
    return picture if picture.mode == "CMYK" else picture.convert("RGB")
