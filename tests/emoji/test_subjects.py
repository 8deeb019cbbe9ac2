import itertools

import pytest

from moslora.emoji import sprites
from moslora.emoji.reading import read
from moslora.emoji.scenes import COUNTS
from moslora.emoji.subjects import STYLE, evaluation_scenes, subject_prompt, subject_scenes
from moslora.errors import ConfigError


@pytest.mark.parametrize("concept", sprites.SUBJECTS)
def test_a_subject_s_pictures_are_five_different_scenes_of_one_thing(concept):
    shown = subject_scenes(concept)
    assert len({scene for _, scene in shown}) == len({picture.tobytes() for picture, _ in shown}) == 5
    for picture, scene in shown:
        assert (scene.concept, scene.style, scene.count) == (concept, STYLE, 1)
        found = read(picture)
        assert (found.background, found.place, found.size) == (scene.background, scene.place, scene.size)


@pytest.mark.parametrize("concept", sprites.SUBJECTS)
def test_evaluation_asks_for_every_place_size_and_count_and_for_no_picture_seen(concept):
    asked = evaluation_scenes(concept)
    assert len(set(asked)) == 25
    assert not set(asked) & {scene for _, scene in subject_scenes(concept)}
    for question, values in (("place", 5), ("size", 3), ("count", len(COUNTS))):
        assert len({getattr(scene, question) for scene in asked}) == values
    assert len({scene.background for scene in asked}) >= 4


def test_a_seed_gives_the_same_scenes_and_another_seed_others():
    assert subject_scenes("fox", seed=1)[0][0].tobytes() == subject_scenes("fox", seed=1)[0][0].tobytes()
    for one, other in itertools.pairwise(range(4)):
        assert evaluation_scenes("fox", seed=one) == evaluation_scenes("fox", seed=one)
        assert evaluation_scenes("fox", seed=one) != evaluation_scenes("fox", seed=other)


def test_prompts_call_a_subject_by_its_identifier_and_class():
    scene = subject_scenes("flamingo")[0][1]
    assert subject_prompt(scene).startswith("a photo of a sks bird on a ")
    assert subject_prompt(scene, identifier="ikat").startswith("a photo of an ikat bird on a ")
    assert "flamingo" not in subject_prompt(scene)
    assert "style" not in subject_prompt(scene)


def test_more_scenes_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match=r"^count is 1000; fox has \d+ scenes, ask for fewer$"):
        evaluation_scenes("fox", count=1000)
