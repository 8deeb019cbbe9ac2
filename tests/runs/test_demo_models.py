"""The vision demo's model: its shipped projector fits the parts, and describes pictures that it never saw."""

from importlib import resources
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText

from moslora.adapter.projectors import read_projector
from moslora.data import easy_vqa
from moslora.data.images import check_image, open_image
from moslora.errors import MissingDependencyError
from moslora.evaluation.asking import Prompt, answers
from moslora.runs.demo_models import PROJECTOR
from moslora.runs.kinds.vision_material import question_ids
from moslora.runs.models import resolve_model
from moslora.runs.processors import load_processor
from moslora.runs.towers import tower_folder
from moslora.training.vision_language import pixels

SHOWN = 8


def test_the_shipped_projector_joins_the_tower_to_the_language_model():
    with resources.as_file(resources.files("moslora.recipes") / PROJECTOR) as file:
        tensors = read_projector(file).tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "linear_1.weight": (576, 384),
        "linear_1.bias": (576,),
        "linear_2.weight": (576, 576),
        "linear_2.bias": (576,),
    }


def test_it_describes_pictures_that_it_never_saw(demo_model: None):
    try:
        tower_folder()
        samples = easy_vqa.captions("test")[:SHOWN]
    except MissingDependencyError as error:
        pytest.skip(str(error))
    folder = resolve_model("smollm2-vision")
    processor = load_processor(folder, AutoConfig.from_pretrained(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    prompts = []
    for sample in samples:
        ids = question_ids(
            sample["conversations"][0]["value"], processor, headers=[check_image(sample["image"], place="test")]
        )
        prompts.append(Prompt(ids, lambda image=sample["image"]: [open_image(image, place="test")]))
    found = answers(
        model,
        processor,
        prompts,
        see=lambda pictures, _ids: pixels(pictures, processor),
        max_new_tokens=8,
        batch_size=SHOWN,
        progress=False,
    )
    right = [text == sample["conversations"][1]["value"] for text, sample in zip(found, samples, strict=True)]
    assert sum(right) >= SHOWN - 1, found
    assert Path(folder).is_dir()
