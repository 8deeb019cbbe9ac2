import numpy as np
import pytest
from PIL import Image

from moslora.emoji import sprites
from moslora.emoji.identity import CUT_OUT, Gallery, colour_histogram, cut_out
from moslora.emoji.scenes import Scene, render


@pytest.fixture(scope="module")
def gallery():
    return Gallery(colour_histogram, styles=("noto",))


def test_real_scenes_are_nearest_to_their_own_concept(gallery):
    names = [concept.name for concept in sprites.concepts()[::12]]
    pictures = [render(Scene(name, background="purple", size="large"), seed=seed) for seed, name in enumerate(names)]
    assert np.mean([gallery.nearest(picture) == name for picture, name in zip(pictures, names, strict=True)]) >= 0.9


def test_every_concept_is_ranked_once(gallery):
    ranked = gallery.ranked(render(Scene("fox", background="green")))
    assert sorted(ranked) == sorted(concept.name for concept in sprites.concepts())
    assert ranked[0] == "fox"


def test_an_empty_picture_is_nearest_to_nothing(gallery):
    empty = Image.new("RGB", (128, 128), "white")
    assert (gallery.nearest(empty), gallery.ranked(empty), cut_out(empty)) == (None, [], None)


def test_a_cut_out_shows_one_copy_without_its_background():
    one = cut_out(render(Scene("orange", background="blue", size="small"), seed=2))
    three = cut_out(render(Scene("orange", background="blue", size="small", count=3), seed=2))
    for thing in (one, three):
        assert thing.size == (CUT_OUT, CUT_OUT)
        pixels = np.asarray(thing)
        solid = pixels[..., 3] > 200
        assert 0.5 < solid.mean() < 0.9
        assert pixels[solid][:, 0].mean() > 200
        assert pixels[0, 0, 3] == 0


def test_the_histogram_counts_drawn_pixels_only_and_knows_neither_place_nor_size():
    red = Image.new("RGBA", (10, 10), (250, 10, 10, 255))
    framed = Image.new("RGBA", (30, 30), (0, 0, 255, 0))
    framed.paste(red, (15, 3))
    rows = colour_histogram([red, framed, Image.new("RGBA", (10, 10), (10, 10, 250, 255))])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1)
    assert rows[0] @ rows[1] == pytest.approx(1)
    assert rows[0] @ rows[2] < 0.2


def test_features_are_the_caller_s(gallery):
    def flat(pictures):
        return np.stack([np.asarray(picture.convert("RGBA"), float).ravel() for picture in pictures])

    picture = render(Scene("fox", background="green", size="large"))
    assert Gallery(flat, styles=("noto",)).ranked(picture) != gallery.ranked(picture)
