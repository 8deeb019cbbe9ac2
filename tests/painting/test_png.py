from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moslora.errors import DataError, OutputError
from moslora.painting.png import picture_name, read_picture, read_pictures, readable, write_picture
from moslora.painting.requests import Request

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("number", "seed", "prompt", "name"),
    [
        (7, 3, "A cat, in the Snow!", "0007-seed3-a-cat-in-the-snow.png"),
        (0, 0, "un café à Zürich", "0000-seed0-un-cafe-a-zurich.png"),
        (12345, 2**40, "猫", "12345-seed1099511627776.png"),
        (
            1,
            1,
            "a cat on top of a purple rug in a forest of old oaks",
            "0001-seed1-a-cat-on-top-of-a-purple-rug-in-a-forest.png",
        ),
        (1, 1, "x" * 60, f"0001-seed1-{'x' * 40}.png"),
    ],
)
def test_a_file_is_named_by_number_seed_and_prompt(number: int, seed: int, prompt: str, name: str) -> None:
    assert picture_name(Request(prompt, seed, number=number)) == name


def test_a_file_gives_back_the_picture_and_how_it_was_made(tmp_path: Path) -> None:
    request = Request("a “red” cat – 猫", 5, "blurred, dark", steps=12, guidance=4.5, number=2)
    settings = {"model": "sdxl", "method": "moslora", "weights": {"style": 0.5}, "scale": 1.0}
    path = write_picture(tmp_path, NOISE, request=request, settings=settings)
    assert path == tmp_path / "0002-seed5-a-red-cat.png"
    assert list(tmp_path.iterdir()) == [path]
    found = read_picture(path)
    assert found.request == Request(
        request.prompt, 5, request.negative_prompt, steps=12, guidance=4.5, width=32, height=24, number=2
    )
    assert found.settings == settings
    assert not found.is_withheld
    assert np.array_equal(np.asarray(found.image), np.asarray(NOISE))
    with Image.open(path) as image:
        assert image.text["parameters"] == (  # pyright: ignore[reportAttributeAccessIssue]
            "a “red” cat – 猫\nNegative prompt: blurred, dark\n"
            "Steps: 12, CFG scale: 4.5, Seed: 5, Size: 32x24, Model: sdxl, Method: moslora, Scale: 1.0"
        )


def test_readable_values_with_signs_of_their_own_are_quoted() -> None:
    text = readable(Request("a cat", 1, width=8, height=8), {"base_model": "a: b, c"})
    assert text == 'a cat\nSteps: 30, CFG scale: 7.5, Seed: 1, Size: 8x8, Base model: "a: b, c"'


def test_writing_again_replaces_the_picture(tmp_path: Path) -> None:
    request = Request("a cat", 1)
    write_picture(tmp_path, NOISE, request=request)
    path = write_picture(tmp_path, Image.new("RGB", (8, 8), "red"), request=request, is_withheld=True)
    assert [(one.path, one.is_withheld) for one in read_pictures(tmp_path)] == [(path, True)]
    assert read_picture(path).image.getpixel((0, 0)) == (255, 0, 0)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*0000-seed1-a-cat.png: No such file or directory"):
        write_picture(tmp_path / "none", NOISE, request=Request("a cat", 1))


def test_the_pictures_of_a_folder_come_by_prompt_and_seed(tmp_path: Path) -> None:
    for number, seed in [(10, 2), (2, 10), (2, 9), (0, 1)]:
        write_picture(tmp_path, NOISE, request=Request("a cat", seed, number=number))
    NOISE.save(tmp_path / "sheet.png")
    (tmp_path / "notes.txt").write_text("x")
    assert [(one.request.number, one.request.seed) for one in read_pictures(tmp_path)] == [
        (0, 1),
        (2, 9),
        (2, 10),
        (10, 2),
    ]


def test_two_pictures_of_one_number_and_seed_are_refused(tmp_path: Path) -> None:
    for prompt in ("a cat", "a dog"):
        write_picture(tmp_path, NOISE, request=Request(prompt, 4, number=1))
    with pytest.raises(DataError, match=r"0001-seed4-a-cat.png and 0001-seed4-a-dog.png are both prompt 1 with seed 4"):
        read_pictures(tmp_path)


def test_a_file_that_says_nothing_of_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "0001-seed2-x.png"
    with pytest.raises(DataError, match="there is no picture"):
        read_picture(path)
    with pytest.raises(DataError, match="has no pictures of moslora generate"):
        read_pictures(tmp_path)
    NOISE.save(path)
    with pytest.raises(DataError, match="does not say how it was made"):
        read_pictures(tmp_path)
    path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no PNG file that can be read"):
        read_picture(path)


def test_a_picture_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_picture(tmp_path, NOISE, request=Request("a cat", 1))
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match="broken or cut off"):
        _ = read_picture(path).image
