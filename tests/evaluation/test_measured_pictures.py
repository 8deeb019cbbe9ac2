from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from moslora.data.images import open_image
from moslora.errors import ConfigError, DataError
from moslora.evaluation.features import Features, open_features
from moslora.evaluation.pictures import measure_drift, measure_prompts, measure_subject
from moslora.painting.drawing import draw
from moslora.painting.png import read_pictures, write_picture
from moslora.painting.requests import Request, requests_for
from tests.diffusion import tiny_sdxl


class Shown(NamedTuple):
    request: Request
    image: Image.Image
    is_withheld: bool = False


def encode_colour(pictures: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(picture).mean(axis=(0, 1)) for picture in pictures]))


COLOUR = Features(
    "mean colour", "none", encode_colour, "red, green or blue", lambda texts: torch.eye(3)[[*map(place, texts)]]
)
REQUESTS = requests_for(["a", "b"], [1, 2])


def place(text: str) -> int:
    return ["red", "green", "blue"].index(text)


def plain(*colour: int) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def shown(*colours: tuple[int, int, int]) -> list[Shown]:
    return [Shown(request, plain(*colour)) for request, colour in zip(REQUESTS, colours, strict=True)]


RED, YELLOW, GREEN, BLUE = (200, 0, 0), (200, 200, 0), (0, 200, 0), (0, 0, 200)


def test_the_subject_is_measured_between_base_and_held_out_photos() -> None:
    drawn, base = shown(RED, YELLOW, GREEN, RED), shown(BLUE, BLUE, BLUE, RED)
    photos, held_out = [plain(*RED), plain(200, 0, 0)], [plain(*YELLOW)]
    similar, original = measure_subject(drawn, base, features=COLOUR, photos=photos, held_out=held_out)
    assert similar.values == pytest.approx([1, 0.5**0.5, 0, 1])
    assert similar.span == pytest.approx((0.25, 0.5**0.5))
    assert similar.mean == pytest.approx((2 + 0.5**0.5) / 4)
    assert [one.credit for one in similar.answers] == pytest.approx([1, 0.5**0.5, 0, 1])
    assert {one.group for one in similar.answers} == {"a", "b"}
    assert similar.rule == (
        "mean cosine to the subject's photos, cut to 0 to 1 (n = 2); mean colour; pictures: none;"
        " texts: red, green or blue"
    )
    assert original.values.tolist() == [0, 1, 1, 0]  # the red ones are copies
    assert original.rule.startswith(
        "0 for a copy, else 1; a copy is nearer to a photo of the subject than 99 % of other photos are (cosine above"
        " 0.707, from 1 held-out photos); mean colour;"
    )


def test_without_held_out_photos_the_training_photos_are_the_ceiling() -> None:
    photos = [plain(*RED), plain(*YELLOW)]
    similar, original = measure_subject(
        shown(RED, RED, BLUE, BLUE), shown(BLUE, BLUE, BLUE, BLUE), features=COLOUR, photos=photos
    )
    assert similar.span == pytest.approx((0, 0.5**0.5))
    assert original.values.tolist() == [0, 0, 1, 1]
    assert "(cosine above 0.707, from the 2 photos held against each other)" in original.rule


def test_drift_is_told_as_likeness_to_the_base() -> None:
    found = measure_drift(shown(RED, RED, RED, RED), shown(RED, RED, YELLOW, BLUE), features=COLOUR)
    assert found.values == pytest.approx([1, 1, 0.5**0.5, 0])
    assert found.name == "likeness-to-base"


def test_each_picture_is_held_against_its_plain_prompt() -> None:
    found = measure_prompts(shown(RED, RED, YELLOW, BLUE), ["red", "blue", "green", "blue"], features=COLOUR)
    assert found.values == pytest.approx([1, 0, 0.5**0.5, 1])
    with pytest.raises(ConfigError, match="reads pictures only"):
        measure_prompts(shown(RED, RED, RED, RED), ["red"] * 4, features=Features("m", "n", encode_colour))


def test_a_withheld_picture_is_worth_nothing() -> None:
    drawn = shown(RED, RED, RED, RED)
    drawn[1] = drawn[1]._replace(is_withheld=True)
    found = measure_prompts(drawn, ["red"] * 4, features=COLOUR)
    assert found.values.tolist() == pytest.approx([1, 0, 1, 1])
    assert [one.is_read for one in found.answers] == [True, False, True, True]


def test_pictures_of_other_requests_than_the_bases_are_refused() -> None:
    drawn = shown(RED, RED, RED, RED)
    for compare in (
        lambda: measure_drift(drawn, drawn[:3], features=COLOUR),
        lambda: measure_subject(drawn, drawn[::-1], features=COLOUR, photos=[plain(*RED)] * 2),
    ):
        with pytest.raises(DataError, match=r"4 pictures and \d of the base were not drawn from the same requests"):
            compare()


def test_pictures_in_files_are_measured_as_those_just_drawn(tmp_path: Path) -> None:
    pipe = DiffusionPipeline.from_pretrained(tiny_sdxl(tmp_path / "sdxl"))
    drawn = list(draw(pipe, requests_for(["a cat", "a dog"], [1, 2], steps=1, width=32, height=32), batch_size=4))
    (tmp_path / "pictures").mkdir()
    for one in drawn:
        write_picture(tmp_path / "pictures", one.image, request=one.request, is_withheld=one.is_withheld)
    photos = [one.image for one in drawn[:3]]
    found = [
        measure_subject(pictures, pictures, features=COLOUR, photos=photos)
        for pictures in (drawn, read_pictures(tmp_path / "pictures"))
    ]
    for a, b in zip(*found, strict=True):
        assert (a.name, a.rule, a.answers, a.span) == (b.name, b.rule, b.answers, b.span)


def test_real_photos_of_the_subject_are_far_above_those_of_others(real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the packages of EfficientNet-Lite0")
    root = real_data("dreambooth")

    def photos(name: str) -> list[Image.Image]:
        return [open_image(str(path), place=name) for path in sorted((root / name).glob("*.jpg"))]

    cats, sloths = photos("cat"), photos("grey_sloth_plushie")
    requests: list[Any] = REQUESTS[:1]
    [cat], [sloth] = (
        [Shown(request, one) for request, one in zip(requests, ones, strict=False)] for ones in (cats[4:], sloths)
    )
    similar, original = measure_subject(
        [cat], [sloth], features=open_features(device="cpu"), photos=cats[:2], held_out=cats[2:4]
    )
    assert similar.span is not None
    assert similar.span.place(similar.mean) > 0.5
    assert similar.span.floor < 0.4 < similar.span.ceiling
    assert original.values.tolist() == [1]
