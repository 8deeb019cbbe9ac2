from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moslora.errors import ConfigError, DataError
from moslora.painting.png import Painted, read_pictures, write_picture
from moslora.painting.requests import requests_for
from moslora.painting.sheet import Axis, Sheet, contact_sheet, weights_axis
from moslora.painting.side_by_side import side_by_side

METHODS, PROMPTS = Axis(("LoRA", "MoSLoRA")), Axis(("a cat in the snow", "a cat on a rug", "a red cat"))


def noise(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


GRID = [[noise(10 * row + column) for column in range(2)] for row in range(3)]


def sheet(pictures: Any = GRID, **options: Any) -> Sheet:
    return contact_sheet(pictures, **{"columns": METHODS, "rows": PROMPTS, "cell": 64, **options})


def part(found: Sheet, box: tuple[int, int, int, int]) -> np.ndarray:
    return np.asarray(found.image.crop(box))


def ink(found: Sheet, box: tuple[int, int, int, int]) -> int:
    """How many pixels of a part are darker than white."""
    return int((part(found, box).min(axis=2) < 200).sum())


def test_each_cell_shows_its_picture_in_rows_and_columns() -> None:
    found = sheet()
    for row, boxes in enumerate(found.cells):
        for column, box in enumerate(boxes):
            assert np.array_equal(part(found, box), np.asarray(GRID[row][column]))
            assert box[:2] == (found.cells[0][column][0], found.cells[row][0][1])
    tops, lefts = [row[0][1] for row in found.cells], [box[0] for box in found.cells[0]]
    assert np.diff(tops).tolist() == [72, 72]  # a cell and a gap
    assert np.diff(lefts).tolist() == [72]
    assert found.image.mode == "RGB"
    assert found.image.width == found.cells[0][1][2] + 28
    assert found.image.height == found.cells[2][0][3] + 28
    assert part(found, (0, 0, found.image.width, 28)).min() == 255


def test_names_stand_above_the_columns_and_left_of_the_rows() -> None:
    found = sheet()
    for left, top, right, _ in found.cells[0]:
        assert ink(found, (left, 0, right, top)) > 0
    for (left, top, _, bottom), _ in found.cells:
        assert ink(found, (0, top, left, bottom)) > 0
    unnamed = sheet(columns=Axis(("", "MoSLoRA")))
    left, top, right, _ = unnamed.cells[0][0]
    assert ink(unnamed, (left, 0, right, top)) == 0


@pytest.mark.parametrize("scale", [2, 3])
def test_a_larger_scale_has_more_pixels_in_the_same_places(scale: int) -> None:
    options: dict[str, Any] = {"title": "Sheet", "note": "A note.", "photos": GRID[0], "captions": [["a", "b"]] * 3}
    small, large = sheet(**options), sheet(**options, scale=scale)
    for a, b in zip(sum(small.cells, small.photos), sum(large.cells, large.photos), strict=True):
        assert np.allclose(np.multiply(a, scale)[[1, 3]], np.array(b)[[1, 3]], atol=6 * scale)  # lines: whole pixels
        assert abs(scale * (a[2] - a[0]) - (b[2] - b[0])) <= scale
    assert large.cells[0][0][2] - large.cells[0][0][0] == 64 * scale
    assert large.image.width == pytest.approx(scale * small.image.width, rel=0.1)  # letters are hinted


def test_photos_stand_above_whole_and_beside_their_name() -> None:
    photos = [noise(1, 60, 60), noise(2, 30, 60), noise(3, 90, 60)]
    found = sheet(photos=photos, cell=100)
    assert len(found.photos) == 3
    assert max(box[3] for box in found.photos) < found.cells[0][0][1]
    assert {box[3] - box[1] for box in found.photos} == {60}
    assert [box[2] - box[0] for box in found.photos] == [60, 30, 90]
    assert np.array_equal(part(found, found.photos[2]), np.asarray(photos[2]))
    assert ink(found, (0, found.photos[0][1], found.photos[0][0], found.photos[0][3])) > 0


def test_many_photos_shrink_and_then_stand_in_several_lines() -> None:
    some, many = sheet(photos=[noise(1)] * 5, cell=100), sheet(photos=[noise(1)] * 30, cell=100)
    assert len({box[1] for box in some.photos}) == 1
    assert 30 <= some.photos[0][3] - some.photos[0][1] < 60
    assert len({box[1] for box in many.photos}) > 2
    assert {box[3] - box[1] for box in many.photos} == {30}
    for found in (some, many):
        assert max(box[2] for box in found.photos) <= found.cells[0][1][2]
        assert max(box[3] for box in found.photos) < found.cells[0][0][1]


def test_captions_stand_below_their_pictures() -> None:
    found = sheet(captions=[["0.31", ""], ["", "0.7"], ["", ""]])
    written = [[ink(found, (box[0], box[3], box[2], box[3] + 18)) > 0 for box in row] for row in found.cells]
    assert written == [[True, False], [False, True], [False, False]]


def test_a_picture_of_another_shape_is_fitted_in_and_a_missing_one_stays_empty() -> None:
    found = sheet([[noise(0, 64, 96), None], [noise(1, 50, 50), noise(2, 32, 48)], [None, noise(3, 64, 96)]])
    assert [box[2] - box[0] for box in found.cells[0]] == [64, 64]
    assert [box[3] - box[1] for box in found.cells[0]] == [96, 96]
    left, top, right, bottom = found.cells[1][0]
    assert (right - left, bottom - top) == (64, 64)
    assert part(found, found.cells[0][1]).min() == part(found, found.cells[0][1]).max() == 240
    assert found.cells[1][1][3] - found.cells[1][1][1] == 96


def test_a_sweep_has_weights_along_arrows() -> None:
    assert weights_axis("style", [0, 0.25, 1.0]).labels == ("0", "0.25", "1")
    plain = sheet(columns=Axis(("0", "1")), rows=Axis(("0", "0.5", "1")))
    swept = sheet(columns=weights_axis("subject", [0, 1]), rows=weights_axis("style", [0, 0.5, 1]))
    above = swept.cells[0][0][1] - plain.cells[0][0][1]
    assert above > 10
    row = part(swept, (swept.cells[0][0][0], 28, swept.cells[0][1][2], 28 + above))
    longest = max(runs(line.min(axis=1) < 200) for line in row)
    assert longest > 60  # the arrow's line


def runs(dark: np.ndarray) -> int:
    """The length of the longest run of true values."""
    return max((len(run) for run in "".join("x" if one else " " for one in dark).split()), default=0)


def test_a_sheet_is_written_as_png(tmp_path: Path) -> None:
    found = sheet()
    found.save(tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), np.asarray(found.image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pictures": GRID[:2]}, "the pictures (in rows of 2, 2) do not fit the names of 3 rows and 2 columns"),
        ({"captions": [["a"]] * 3}, "the captions (in rows of 1, 1, 1) do not fit the names of 3 rows and 2 columns"),
        ({"rows": Axis(()), "pictures": []}, "0 rows of 2 columns make no sheet"),
        ({"rows": Axis(PROMPTS.labels, notes=("x",))}, "1 notes do not fit 3 names"),
        ({"cell": 31}, "cells of 31 pixels at scale 1; give at least 32 pixels, and a scale of 1, 2, 3, 4"),
        ({"scale": 5}, "cells of 64 pixels at scale 5"),
    ],
)
def test_what_makes_no_sheet_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        sheet(**options)
    assert message in str(refusal.value)


def drawn(folder: Path, *, first: int, prompts: tuple[str, ...] = PROMPTS.labels, **settings: Any) -> list[Painted]:
    folder.mkdir()
    for place, request in enumerate(requests_for(prompts, [4, 7], **settings)):
        write_picture(folder, noise(first + place), request=request)
    return read_pictures(folder)


def test_methods_stand_side_by_side_by_prompt_and_seed(tmp_path: Path) -> None:
    lora, ours = drawn(tmp_path / "lora", first=0), drawn(tmp_path / "ours", first=100)
    found = side_by_side({"LoRA": lora, "MoSLoRA": ours}, cell=64)
    assert len(found.cells) == 6
    for place, (left, right) in enumerate(found.cells):
        assert np.array_equal(part(found, left), np.asarray(noise(place)))
        assert np.array_equal(part(found, right), np.asarray(noise(100 + place)))


def test_few_rows_show_as_many_prompts_as_can_be(tmp_path: Path) -> None:
    painted = drawn(tmp_path / "lora", first=0)
    found = side_by_side({"LoRA": painted}, most_rows=4, cell=64)
    shown = [part(found, box) for (box,) in found.cells]
    for array, expected in zip(shown, [0, 1, 2, 4], strict=True):  # both seeds of the first prompt
        assert np.array_equal(array, np.asarray(noise(expected)))


def test_methods_that_drew_other_things_are_not_compared(tmp_path: Path) -> None:
    lora = drawn(tmp_path / "lora", first=0)
    ours = drawn(tmp_path / "ours", first=0, steps=20)
    with pytest.raises(DataError) as refusal:
        side_by_side({"LoRA": lora, "MoSLoRA": ours})
    assert (
        "MoSLoRA and LoRA did not draw the same: 6 of 6 pictures differ in what was asked for, first prompt 0"
        in str(refusal.value)
    )
    with pytest.raises(DataError, match="1 of 6 pictures differ in what was asked for, first prompt 2 with seed 7"):
        side_by_side({"LoRA": lora, "fewer": lora[:-1]})
    with pytest.raises(DataError, match="2 methods with nothing drawn make no sheet"):
        side_by_side({"LoRA": lora, "none": []})
