from collections import Counter
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moslora.data import easy_vqa
from moslora.data.conversations import read_conversations
from moslora.data.easy_vqa import ANSWERS, COLOURS, KINDS, SHAPES, SPLITS, captions, conversations, questions
from moslora.data.images import ImageHeader
from moslora.errors import DataError, MissingDependencyError

DRAWN = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    """Skips where the pictures are not installed."""
    try:
        metadata.distribution(easy_vqa.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs the pictures: pip install {easy_vqa.PACKAGE}=={easy_vqa.VERSION}")


def test_every_question_has_a_picture_and_one_of_the_13_answers():
    assert len(ANSWERS) == 13
    for split, asked, pictures in (("train", 38575, 4000), ("test", 9673, 1000)):
        found = questions(split)
        assert len(found) == asked
        assert len({one["image"] for one in found}) == pictures
        assert all(Path(image).is_file() for image in {one["image"] for one in found})
        assert {one["answer"] for one in found} == set(ANSWERS)


def test_the_kind_of_a_question_is_that_of_its_answer():
    kinds = {kind: {one["answer"] for one in questions("test") if one["kind"] == kind} for kind in KINDS}
    assert kinds == {"colour": set(COLOURS), "shape": set(SHAPES), "yes/no": {"yes", "no"}}
    assert Counter(one["kind"] for one in questions("test")) == {"yes/no": 7136, "shape": 1257, "colour": 1280}


def test_open_questions_are_those_that_a_colour_or_a_shape_answers():
    found = conversations("test", is_open=True)
    assert [one["id"] for one in found] == [
        one["id"] for one in questions("test") if one["answer"] not in ("yes", "no")
    ]
    assert len(found) == 1257 + 1280


def test_balanced_questions_are_not_answered_by_their_wording():
    for split, kept in (("train", 10298), ("test", 2492)):
        whole, half = questions(split), questions(split, is_balanced=True)
        assert [one for one in half if one["kind"] != "yes/no"] == [one for one in whole if one["kind"] != "yes/no"]
        asked = [one for one in half if one["kind"] == "yes/no"]
        assert len(asked) == kept
        for word in (*COLOURS, *SHAPES):
            for negated in (False, True):
                answers = Counter(
                    one["answer"]
                    for one in asked
                    if word in one["question"].rstrip("?").split()
                    and negated == (" no " in one["question"] or " not " in one["question"])
                )
                assert answers["yes"] == answers["no"] > 0
        ids = {one["id"] for one in half}
        assert [one for one in whole if one["id"] in ids] == half


def test_no_picture_of_the_test_is_trained_on():
    contents = {
        split: {sha256(Path(image).read_bytes()).hexdigest() for image in {one["image"] for one in questions(split)}}
        for split in SPLITS
    }
    assert {split: len(pictures) for split, pictures in contents.items()} == {"train": 4000, "test": 1000}
    assert not contents["train"] & contents["test"]


def test_captions_say_the_colour_that_is_drawn():
    for sample in captions("test"):
        _, colour, _ = sample["conversations"][1]["value"].split()
        assert commonest(sample["image"])[1] == DRAWN[colour], sample


def commonest(image: str) -> list[tuple[int, ...]]:
    """The two commonest colours of a picture: the background's and the shape's."""
    pixels = np.array(Image.open(image).convert("RGB")).reshape(-1, 3)
    return [colour for colour, _ in Counter(map(tuple, pixels.tolist())).most_common(2)]


def test_captions_agree_with_every_question_about_their_picture():
    for split, known in (("train", 3181), ("test", 791)):
        told = {sample["image"]: sample["conversations"][1]["value"].split() for sample in captions(split)}
        assert len(told) == known
        asked = [one for one in questions(split) if one["kind"] != "yes/no" and one["image"] in told]
        assert all(one["answer"] in told[one["image"]] for one in asked)
        assert all(article == "a" and c in COLOURS and s in SHAPES for article, c, s in told.values())


def test_the_samples_are_read_as_conversations_with_pictures():
    samples = [*conversations("test", is_balanced=True)[:3], *captions("test")[:2]]
    read = read_conversations(samples, source="easy-VQA")
    assert [one.kind for one in read.conversations] == [sample["kind"] for sample in samples]
    assert [one.headers for one in read.conversations] == [(ImageHeader(64, 64),)] * 5
    assert not read.left_out
    assert not read.remarks


def test_a_sample_has_an_id_of_its_own():
    samples = [sample for split in SPLITS for sample in (*conversations(split), *captions(split))]
    assert len({sample["id"] for sample in samples}) == len(samples)


def test_what_is_given_may_be_changed():
    questions("test")[0]["answer"] = "pink"
    assert questions("test")[0]["answer"] in ANSWERS


def test_another_split_is_refused():
    with pytest.raises(DataError) as caught:
        questions("tests")
    assert str(caught.value) == "easy-VQA has no split 'tests'; did you mean 'test'? (allowed: train, test)"


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(easy_vqa, "PACKAGE", "easy-vqa-that-is-not-there")
    with pytest.raises(MissingDependencyError) as caught:
        captions("train")
    assert str(caught.value) == (
        "the pictures of easy-VQA come with a package that is not installed: "
        "pip install easy-vqa-that-is-not-there==1.0"
    )
