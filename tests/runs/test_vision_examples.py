"""Questions that a run keeps with their pictures, to look at."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from moslora.data.vision_tasks.question import LETTER_SENTENCE, Question
from moslora.evaluation.answers import Answer
from moslora.evaluation.examples import read_examples
from moslora.runs.adapters import open_adapter
from moslora.runs.kinds.vision_examples import examples_of
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.runs.scoring import evaluate_adapter
from tests.pictures import COLOURS


def test_six_questions_are_kept_with_their_pictures_and_again_when_it_is_evaluated(
    write_vision: Callable[..., Path], tmp_path: Path
):
    run_recipe(load_recipe(write_vision(evaluation={"limit": 12})), tmp_path / "run", progress=False)
    path = tmp_path / "run" / "answers" / "easy-vqa-examples.json"
    found = read_examples(path)
    assert found
    assert found.when == "after"
    assert len(found.examples) == 6
    for example in found.examples:
        assert example.question == "What colour?"
        assert example.given.is_correct == (example.given.predicted == example.expected)
        assert [*example.controls] == ["picture blanked"]
        (picture,) = example.pictures
        with Image.open(io.BytesIO(picture.content)) as image:
            assert image.size == (picture.width, picture.height) == (20 + example.index, 20)
            colour = image.convert("RGB").getpixel((5, 5))
        assert colour == COLOURS[example.expected]
    opened = open_adapter(tmp_path / "run")
    assert opened.recipe
    settings = opened.recipe.evaluation.model_copy(update={"limit": 3})
    evaluate_adapter(opened, settings, with_agreement=False, report=lambda line: None, progress=False)
    again = read_examples(path)
    assert again
    assert (again.when, [example.index for example in again.examples]) == ("evaluated", [0, 1, 2])
    assert [*again.examples[0].controls] == ["picture blanked"]


def test_a_large_picture_is_kept_small(tmp_path: Path):
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(values).resize((1600, 1200)).save(tmp_path / "photo.png")
    question = Question(
        "7",
        "Is it A?\nA. a cat\nB. a dog\n" + LETTER_SENTENCE,
        [str(tmp_path / "photo.png")],
        {"A": "a cat", "B": "a dog"},
        ["B"],
        unit="7",
    )
    answers = {"after": [Answer(0, "B", "A", False, text="A", options=2)]}
    (found,) = examples_of([question], lambda when: answers.get(when, []), when="after", control="picture blanked")
    assert found["question"] == "Is it A?\nA. a cat\nB. a dog"
    assert (found["expected"], found["given"]["predicted"], found["controls"]) == ("B. a dog", "A. a cat", {})
    (picture,) = found["pictures"]
    assert (picture["width"], picture["height"], picture["media_type"]) == (160, 120, "image/jpeg")
    assert len(picture["content"]) < 20_000
