import base64
import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from moslora.data.images import (
    ImageHeader,
    blank,
    check_image,
    content_hash,
    decoded,
    encoded,
    open_image,
    pad_to_square,
)
from moslora.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(width=40, height=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def content(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def refusal(action, image, **options):
    with pytest.raises(DataError) as caught:
        action(image, place="a.json: sample 3", **options)
    message = str(caught.value)
    assert message.startswith("a.json: sample 3: image ")
    assert "\n" not in message
    return message


def pixels(image):
    picture = open_image(image, place="x")
    assert picture.mode == "RGB"
    return [tuple(int(value) for value in pixel) for row in np.asarray(picture) for pixel in row]


def with_chunk(png, name, data, *, before):
    chunk = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    at = png.index(before) - 4
    return png[:at] + chunk + png[at:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_picture_of_each_format_is_checked_and_opened_from_a_file_and_from_bytes(tmp_path, form):
    data = content(noise(), form)
    path = tmp_path / "picture"  # the content tells the format, not the name
    path.write_bytes(data)
    for image in (str(path), data):
        assert check_image(image, place="x") == ImageHeader(40, 30)
        assert open_image(image, place="x").size == (40, 30)


def test_lossless_pixels_stay_as_they_are():
    assert (np.asarray(open_image(content(noise()), place="x")) == np.asarray(noise())).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_picture_that_is_cut_off_is_refused_by_the_header_check_too(form, share):
    data = content(noise(120, 90), form)
    cut = data[: int(len(data) * share)]
    for action in (check_image, open_image):
        message = refusal(action, cut)
        assert f"image (embedded, {len(cut):,} bytes): broken or cut off (" in message
        assert message.endswith("); fetch it again, or leave the sample out")


def test_cut_off_pictures_are_refused_where_another_library_lets_pillow_fill_them_up(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    cut = content(noise(), "JPEG")[:-200]
    for action in (check_image, open_image):
        assert "broken or cut off" in refusal(action, cut)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(("form", "end"), [("JPEG", b"\0" * 200), ("PNG", b"trailing" * 20), ("GIF", b"\0")])
def test_what_follows_a_whole_picture_does_no_harm(form, end):
    assert check_image(content(noise(), form) + end, place="x") == ImageHeader(40, 30)


def test_a_whole_picture_is_checked_without_decoding_its_pixels():
    data = content(noise())
    at = data.index(b"IDAT") + 4
    spoilt = data[:at] + b"\0\0\0\0" + data[at + 4 :]
    assert check_image(spoilt, place="x") == ImageHeader(40, 30)
    assert "broken or cut off" in refusal(open_image, spoilt)


def test_a_missing_file_is_named_with_its_near_ones(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(content(noise()))
    (tmp_path / "2.jpg").write_bytes(content(noise(), "JPEG"))
    near = tmp_path / "images" / "1.jpg"
    assert f"image '{near}': no such file; did you mean '{near.with_suffix('.png')}'; " in refusal(
        check_image, str(near)
    )
    message = refusal(open_image, str(tmp_path / "images" / "2.jpg"))
    assert f"did you mean '{tmp_path / '2.jpg'}'; correct the path or the image folder" in message
    assert refusal(check_image, str(tmp_path / "3.jpg")).endswith(
        "3.jpg': no such file; correct the path or the image folder"
    )
    assert refusal(check_image, str(tmp_path)).endswith("is a folder; name a file in it")
    assert "cannot be read (embedded null byte)" in refusal(check_image, "a\0b")


@pytest.mark.parametrize(
    "data", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg></svg>"]
)
def test_what_is_no_picture_is_refused_with_the_known_formats(data):
    message = refusal(check_image, data)
    assert message.endswith(
        "no picture of a known format (allowed: JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM), or cut off in its header; "
        "convert it, or fetch it again"
    )


def enormous(width, height):
    """The header of a picture that would take more memory than there is."""
    png = content(Image.new("L", (1, 1)))
    start = png.index(b"IHDR")
    header = b"IHDR" + struct.pack(">II", width, height) + png[start + 12 : start + 17]
    return png[: png.index(b"IHDR")] + header + struct.pack(">I", zlib.crc32(header)) + png[start + 21 :]


def test_enormous_pictures_are_refused_before_they_are_decoded():
    for action in (check_image, open_image):
        assert "10000 x 10000 pixels, at most 89,478,485 are allowed; make it smaller, " in refusal(
            action, enormous(10_000, 10_000)
        )
        assert "far too large (" in refusal(action, enormous(60_000, 60_000))
        assert "40 x 30 pixels, at most 1,000 are" in refusal(action, content(noise()), max_pixels=1000)
    assert check_image(content(noise()), place="x", max_pixels=1200) == ImageHeader(40, 30)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_a_picture_of_several_frames_is_refused(form):
    data = content(noise(), form, save_all=True, append_images=[blank((40, 30)), noise(40, 30).rotate(180)])
    for action in (check_image, open_image):
        assert refusal(action, data).endswith("has 3 frames, and only single pictures are read; save a single frame")


def test_the_previews_behind_a_cameras_picture_are_no_frames():
    data = content(noise(), "MPO", save_all=True, append_images=[noise(8, 6)])
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert check_image(data, place="x") == ImageHeader(40, 30)
    assert open_image(data, place="x").size == (40, 30)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_cameras_rotation_is_applied(form, orientation):
    upright = Image.new("RGB", (48, 32), BLUE)
    upright.paste(RED, (0, 0, 16, 16))  # the upper left corner, for a person
    undo = [  # how the camera stored it
        None,
        Image.Transpose.FLIP_LEFT_RIGHT,
        Image.Transpose.ROTATE_180,
        Image.Transpose.FLIP_TOP_BOTTOM,
        Image.Transpose.TRANSPOSE,
        Image.Transpose.ROTATE_90,
        Image.Transpose.TRANSVERSE,
        Image.Transpose.ROTATE_270,
    ][orientation - 1]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = content(stored, form, exif=exif)
    assert check_image(data, place="x") == ImageHeader(48, 32)
    picture = open_image(data, place="x")
    assert picture.size == (48, 32)
    red, blue = np.asarray(picture)[8, 8].astype(int), np.asarray(picture)[24, 40].astype(int)
    assert np.abs(red - RED).max() < 20
    assert np.abs(blue - BLUE).max() < 20


def test_a_rotation_told_after_the_pixels_counts_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = with_chunk(content(noise()), b"eXIf", exif.tobytes()[6:], before=b"IEND")
    assert check_image(data, place="x") == ImageHeader(30, 40)
    assert open_image(data, place="x").size == (30, 40)


def test_transparent_parts_become_white():
    picture = Image.new("RGBA", (3, 1))
    for x, pixel in enumerate([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 255, 128)]):
        picture.putpixel((x, 0), pixel)
    assert pixels(content(picture)) == [RED, WHITE, (127, 127, 255)]
    grey = Image.new("LA", (2, 1), (10, 255))
    grey.putpixel((1, 0), (10, 0))
    assert pixels(content(grey)) == [(10, 10, 10), WHITE]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_a_palettes_transparent_colour_becomes_white(transparency):
    picture = Image.new("P", (3, 1))
    picture.putpalette([*RED, *GREEN, *BLUE])
    for x in range(3):
        picture.putpixel((x, 0), x)
    assert pixels(content(picture)) == [RED, GREEN, BLUE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(content(picture, transparency=transparency)) == [RED, WHITE, BLUE]


def test_a_colour_declared_transparent_becomes_white():
    picture = Image.new("RGB", (2, 1), RED)
    picture.putpixel((1, 0), GREEN)
    assert pixels(content(picture, transparency=GREEN)) == [RED, WHITE]


def test_cmyk_greyscale_and_black_and_white_become_rgb():
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert pixels(content(cmyk, "TIFF"))[0] == RED
    assert np.abs(np.array(pixels(content(cmyk, "JPEG"))[0]) - RED).max() < 10
    assert pixels(content(Image.new("L", (1, 1), 7))) == [(7, 7, 7)]
    assert pixels(content(Image.new("1", (1, 1), 1))) == [WHITE]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_greyscale_keeps_its_range(form):
    picture = Image.fromarray(np.array([[0, 0x0100, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert pixels(content(picture, form)) == [(0, 0, 0), (1, 1, 1), (128, 128, 128), WHITE]


def test_pixels_of_an_unknown_range_are_refused():
    for values in (
        np.array([[0.5]], dtype=np.float32),
        np.array([[70_000]], dtype=np.int32),
        np.array([[-1]], np.int32),
    ):
        message = refusal(open_image, content(Image.fromarray(values), "TIFF"))
        assert message.endswith("32-bit pixels have no known range; save it with 8 or 16 bits")


def test_padding_keeps_the_picture_in_the_middle_of_a_square():
    wide = pad_to_square(Image.new("RGB", (4, 1), RED), BLUE)
    assert wide.size == (4, 4)
    assert [wide.getpixel((0, y)) for y in range(4)] == [BLUE, RED, BLUE, BLUE]
    tall = pad_to_square(Image.new("RGB", (2, 4), RED), BLUE)
    assert [tall.getpixel((x, 0)) for x in range(4)] == [BLUE, RED, RED, BLUE]
    square = noise(8, 8)
    assert (np.asarray(pad_to_square(square, RED)) == np.asarray(square)).all()


def test_a_blank_picture_has_one_colour():
    assert blank((3, 2)).size == (3, 2)
    assert blank((3, 2), colour=GREEN).getcolors() == [(6, GREEN)]


def test_an_encoded_picture_is_the_same_picture():
    assert (np.asarray(open_image(encoded(noise()), place="x")) == np.asarray(noise())).all()


def test_a_picture_is_known_by_its_content_wherever_it_lies(tmp_path):
    red, blue = (encoded(blank((4, 4), colour=colour)) for colour in ((200, 0, 0), (0, 0, 200)))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(red)
    found = {content_hash(one, place="sample 1") for one in (red, str(tmp_path / "a.png"), str(tmp_path / "b.png"))}
    assert found == {hashlib.sha256(red).hexdigest()}
    assert content_hash(blue, place="sample 1") not in found
    with pytest.raises(DataError, match=r"sample 1: image '.*c\.png': no such file"):
        content_hash(str(tmp_path / "c.png"), place="sample 1")


def test_base64_is_decoded_over_line_breaks_and_other_text_is_refused():
    data = content(noise())
    assert decoded(base64.encodebytes(data).decode(), place="x") == data
    with pytest.raises(DataError, match=r"^x: 'images/1\.png…' is not base64 \(.*\); encode the picture again$"):
        decoded("images/1.png", place="x")


def test_the_pictures_of_a_real_set_are_all_whole(real_data):
    paths = sorted(real_data("scienceqa/images").iterdir())
    for path in paths[:50]:
        header = check_image(str(path), place="scienceqa")
        assert open_image(str(path), place="scienceqa").size == (header.width, header.height)
