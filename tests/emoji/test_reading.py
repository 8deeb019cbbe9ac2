import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from moslora.emoji import sprites
from moslora.emoji.reading import Reading, read
from moslora.emoji.scenes import BACKGROUNDS, COUNTS, Scene, clashes, places_and_sizes, render

QUESTIONS = ("background", "place", "size", "count")


def any_scene(draw):
    concept, style = draw.choice(sprites.concepts()).name, draw.choice(sprites.STYLES)
    background = draw.choice([colour for colour in BACKGROUNDS if not clashes(concept, style, colour)])
    count = draw.choice(COUNTS)
    place, size = draw.choice(places_and_sizes(count))
    return Scene(concept, style, background, place, size, count)


@pytest.mark.parametrize("blur", [0, 1.2])
def test_the_rules_read_real_scenes(blur):
    draw = random.Random(blur)
    scenes = [any_scene(draw) for _ in range(150)]
    pictures = [render(scene, seed=seed).filter(ImageFilter.GaussianBlur(blur)) for seed, scene in enumerate(scenes)]
    found = [read(picture) for picture in pictures]
    for question in QUESTIONS:
        right = np.mean(
            [getattr(one, question) == getattr(scene, question) for one, scene in zip(found, scenes, strict=True)]
        )
        assert right >= 0.98, question


def test_every_background_place_size_and_count_is_read():
    for count in COUNTS:
        for (place, size), background in zip(places_and_sizes(count), [*BACKGROUNDS] * 2, strict=False):
            scene = Scene("koala", "noto", background, place, size, count)
            assert read(render(scene, seed=5)) == Reading(background, place, size, count)


def test_an_empty_picture_has_a_background_and_nothing_else():
    assert read(Image.new("RGB", (128, 128), BACKGROUNDS["pink"])) == Reading("pink", None, None, None)


def test_a_border_of_no_known_colour_has_no_name():
    assert read(Image.new("RGB", (128, 128), (0, 255, 255))).background is None


def test_a_thing_in_a_corner_is_in_none_of_the_places():
    picture = Image.new("RGB", (128, 128), BACKGROUNDS["white"])
    picture.paste((200, 0, 0), (6, 6, 40, 40))
    assert read(picture) == Reading("white", None, "small", 1)


def test_a_thing_larger_or_smaller_than_every_size_has_no_size():
    for share in (0.08, 0.97):
        side = round(128 * share)
        picture = Image.new("RGB", (128, 128), BACKGROUNDS["white"])
        start = (128 - side) // 2
        picture.paste((0, 90, 0), (start, start, start + side, start + side))
        assert read(picture).size is None, share


def test_specks_of_noise_change_nothing():
    scene = Scene("koala", "noto", "purple", "left", "medium")
    pixels = np.array(render(scene))
    pixels[np.random.default_rng(0).integers(0, 128, 6), np.random.default_rng(1).integers(0, 128, 6)] = 255
    assert read(Image.fromarray(pixels)) == Reading("purple", "left", "medium", 1)
