import itertools

import numpy as np
import pytest

from moslora.emoji import sprites
from moslora.emoji.scenes import BACKGROUNDS, COUNTS, PLACES, SIZES, Scene, clashes, places_and_sizes, render
from moslora.errors import ConfigError


def test_the_same_seed_draws_the_same_picture_and_another_seed_another():
    scene = Scene("dog", background="blue", place="left")
    assert render(scene, seed=3).tobytes() == render(scene, seed=3).tobytes()
    assert len({render(scene, seed=seed).tobytes() for seed in range(20)}) == 20


def test_a_picture_is_rgb_of_the_size_asked_for():
    for size in (64, 128, 200):
        picture = render(Scene("dog"), size=size)
        assert (picture.mode, picture.size) == ("RGB", (size, size))


def test_prompts_tell_the_clauses_asked_for_in_one_order():
    scene = Scene("owl", "twemoji", "red", "bottom", "small", 2)
    whole = "a photo of an owl on a red background, small, at the bottom, in twemoji style, two of them"
    assert scene.prompt() == whole
    assert scene.prompt(clauses=()) == "a photo of an owl, two of them"
    assert scene.prompt(clauses=("place", "background")) == (
        "a photo of an owl on a red background, at the bottom, two of them"
    )
    assert Scene("owl").prompt(name="sks bird", clauses=("size",)) == "a photo of a sks bird, medium"


def test_prompts_that_tell_everything_differ_for_different_scenes():
    scenes = [
        Scene("dog", style, background, place, size, count)
        for count in COUNTS
        for (place, size), style, background in itertools.product(places_and_sizes(count), sprites.STYLES, BACKGROUNDS)
    ]
    assert len({scene.prompt() for scene in scenes}) == len(scenes) == (15 + 6 + 3) * 2 * 8


def test_copies_never_touch_the_border_nor_each_other():
    for count in COUNTS:
        for place, size in places_and_sizes(count):
            pixels = np.asarray(render(Scene("orange", "noto", "black", place, size, count), seed=1)).astype(int)
            thing = np.abs(pixels - pixels[0, 0]).max(axis=-1) > 60
            assert not thing[[0, -1]].any()
            assert not thing[:, [0, -1]].any()
            starts = np.diff(thing.any(axis=0).astype(int)) == 1
            assert starts.sum() == count


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background": "teal"}, r"^background is 'teal'; choose one of red, yellow, .*$"),
        ({"place": "middle"}, r"^place is 'middle'; choose one of left, right, centre, top, bottom$"),
        ({"size": "huge"}, r"^size is 'huge'; choose one of small, medium, large$"),
        ({"count": 4}, r"^count is 4; choose one of 1, 2, 3$"),
        ({"concept": "griffin"}, r"^concept is 'griffin'; "),
        (
            {"count": 3, "size": "medium"},
            r"^3 copies, medium, centre do not fit in the picture; choose a smaller size or count$",
        ),
        ({"count": 2, "place": "left"}, r"^2 copies, medium, left do not fit in the picture; "),
    ],
)
def test_a_scene_that_cannot_be_drawn_is_an_error(values, message):
    with pytest.raises(ConfigError, match=message):
        Scene(**{"concept": "dog", **values})


def test_a_sprite_of_its_background_s_colour_clashes_and_every_sprite_has_backgrounds_left():
    assert clashes("heart", "noto", "red")
    assert not clashes("heart", "noto", "green")
    for concept, style in itertools.product(sprites.concepts(), sprites.STYLES):
        assert sum(not clashes(concept.name, style, colour) for colour in BACKGROUNDS) >= 4


def test_sizes_and_places_are_far_enough_apart_to_be_told():
    shares = sorted(SIZES.values())
    assert all(larger / smaller > 1.4 for smaller, larger in itertools.pairwise(shares))
    assert len(set(PLACES.values())) == len(PLACES)
