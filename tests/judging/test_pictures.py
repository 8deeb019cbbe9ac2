import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from moslora.errors import DataError
from moslora.judging.pictures import LONGEST_PIXELS, PHOTO_PIXELS, alike, padded, photo


def noise(side: int, *, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def opened(body: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(body))
    image.load()
    return image


def test_pixels_stay_and_what_the_file_said_goes(tmp_path: Path):
    info = PngInfo()
    info.add_text("parameters", "drawn by zebra-lora")
    original = noise(64)
    exif = Image.Exif()
    exif[0x010E] = "zebra-lora"
    original.save(tmp_path / "a.png", pnginfo=info, exif=exif, dpi=(300, 300))
    Image.new("RGB", (64, 64), "red").save(tmp_path / "b.png")
    body, other = alike([tmp_path / "a.png", tmp_path / "b.png"], name="a")
    assert opened(body).tobytes() == original.tobytes()
    assert b"zebra" not in body
    assert opened(body).info == opened(other).info == {}


def test_a_pair_has_one_format_size_and_length_whatever_it_was(tmp_path: Path):
    noise(96).save(tmp_path / "a.jpg", quality=60)
    Image.new("RGBA", (48, 48), (0, 200, 0, 128)).save(tmp_path / "b.webp", lossless=True)
    noise(200, seed=2).save(tmp_path / "c.png")
    found = alike([tmp_path / name for name in ("a.jpg", "b.webp", "c.png")], name="x")
    assert len({len(body) for body in found}) == 1
    assert {opened(body).size for body in found} == {(48, 48)}
    assert {(opened(body).format, opened(body).mode) for body in found} == {("PNG", "RGB")}
    assert len(set(found)) == 3


def test_padding_changes_no_pixel():
    bodies = []
    for image in (noise(32), Image.new("RGB", (32, 32))):
        stream = io.BytesIO()
        image.save(stream, "PNG")
        bodies.append(stream.getvalue())
    for before, after in zip(bodies, padded(bodies), strict=True):
        assert opened(before).tobytes() == opened(after).tobytes()


def test_pictures_of_other_shapes_are_refused(tmp_path: Path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 96)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"'cup' differ in shape.* 64 x 64 .* 64 x 96 .*; draw one shape"):
        alike([tmp_path / "a.png", tmp_path / "b.png"], name="cup")


def test_large_pictures_and_photos_are_made_smaller_in_their_shape(tmp_path: Path):
    Image.new("RGB", (4000, 2000), "blue").save(tmp_path / "a.png")
    (body,) = alike([tmp_path / "a.png"], name="x")
    assert opened(body).size == (LONGEST_PIXELS, LONGEST_PIXELS // 2)
    assert opened(photo(tmp_path / "a.png")).size == (PHOTO_PIXELS, PHOTO_PIXELS // 2)


def test_a_rotated_photo_stands_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert opened(photo(tmp_path / "a.jpg")).size == (20, 40)


def test_a_broken_picture_is_named(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"cup.*a\.png"):
        alike([tmp_path / "a.png"], name="cup")


def swapped_primaries() -> bytes:
    """An sRGB profile in which red and blue have changed places."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"?XYZ").replace(b"bXYZ", b"rXYZ").replace(b"?XYZ", b"bXYZ")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_those_that_the_profile_means(tmp_path: Path, mode: str):
    image = Image.new("RGB", (16, 16), (255, 0, 0)).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=swapped_primaries())
    Image.new("RGB", (16, 16), (0, 0, 255)).save(tmp_path / "b.png")
    found = [*alike([tmp_path / "a.png", tmp_path / "b.png"], name="x"), photo(tmp_path / "a.png")]
    for body in found:
        assert np.abs(np.asarray(opened(body), dtype=int) - (0, 0, 255)).max() <= 2
        assert opened(body).info == {}


def test_a_profile_of_srgb_itself_changes_next_to_nothing(tmp_path: Path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    original = noise(32)
    original.save(tmp_path / "a.png", icc_profile=srgb)
    (body,) = alike([tmp_path / "a.png"], name="x")
    assert np.abs(np.asarray(opened(body), dtype=int) - np.asarray(original)).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA"])
def test_grey_pictures_may_have_a_profile_of_rgb(tmp_path: Path, mode: str):
    Image.new("L", (8, 8), 255).convert(mode).save(tmp_path / "a.png", icc_profile=swapped_primaries())
    assert np.asarray(opened(photo(tmp_path / "a.png"))).min() >= 254


@pytest.mark.parametrize("profile", [b"no profile", ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()])
def test_a_profile_that_cannot_be_used_is_refused_with_the_name_of_the_file(tmp_path: Path, profile: bytes):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", icc_profile=profile)
    for read in (lambda: alike([tmp_path / "a.png"], name="cup"), lambda: photo(tmp_path / "a.png")):
        with pytest.raises(DataError, match=r"a\.png.* colour profile cannot be used .*; save the picture in sRGB"):
            read()
