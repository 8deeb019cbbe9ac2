"""What is drawn with a trained subject, and measured: before, after, and what real pictures reach."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from moslora.errors import ConfigError
from moslora.painting.png import read_pictures
from moslora.records import RunRecord
from moslora.runs.adapters import open_adapter
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.runs.scoring import evaluate_adapter, read_answers
from tests.diffusion import clip_tokenizer

Train = Callable[..., RunRecord]
DRAWN = {"prompts": ["a photo of {} in the snow", "a photo of {} at home"], "subject": "sks dog", "class_name": "dog"}
QUICK = {**DRAWN, "steps": 2, "seeds": 2, "guidance": 1.0, "batch_size": 4}


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model of random weights with its processor."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    text = CLIPTextConfig(**sizes, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, projection_dim=16)
    vision = CLIPVisionConfig(**sizes, image_size=32, patch_size=8, projection_dim=16)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def train(tmp_path: Path, write_subject: Callable[..., Path], tiny_clip: Path) -> Train:
    """Train the tiny recipe and measure what it draws."""

    def run(name: str, *, tasks: list[str], **changes: Any) -> RunRecord:
        evaluation = {**QUICK, "tasks": tasks, "features": str(tiny_clip), **changes.pop("evaluation", {})}
        return run_recipe(load_recipe(write_subject(evaluation=evaluation, **changes)), tmp_path / name, progress=False)

    return run


def test_a_run_measures_what_it_draws_between_its_floor_and_its_ceiling(train: Train, tmp_path: Path, tiny_clip: Path):
    tasks = ["subject-similarity", "prompt-similarity", "likeness-to-base", "originality"]
    record = train("run", tasks=tasks, evaluation={"before": True})
    found = {(one.task, one.when): one for one in record.evaluations}
    assert set(found) == {
        *((task, "after") for task in tasks),
        *((task, "before") for task in tasks if task != "likeness-to-base"),
        ("subject-similarity", "real pictures"),
    }
    likeness = found["likeness-to-base", "after"]
    assert likeness.accuracy < 1
    assert likeness.scored is not None
    assert likeness.scored.rule is not None
    assert str(tiny_clip) in likeness.scored.rule or "CLIP" in likeness.scored.rule
    assert likeness.total == 12 * 2  # unrelated prompts, of which there are twelve
    after = found["subject-similarity", "after"]
    assert after.total == 4
    pictures = read_pictures(tmp_path / "run" / "pictures" / "after")
    assert [one.request.prompt for one in pictures][:1] == ["a photo of sks dog in the snow"]
    answers = read_answers(tmp_path / "run" / "answers" / "subject-similarity-after-drawing.jsonl")
    assert sum(one.credit for one in answers) / 4 == pytest.approx(after.accuracy)


def test_a_trained_adapter_is_measured_again_to_the_same_numbers(train: Train, tmp_path: Path):
    record = train("run", tasks=["subject-similarity"])
    first = next(one for one in record.evaluations if one.when == "after")
    opened = open_adapter(tmp_path / "run")
    assert opened.recipe is not None
    [again] = evaluate_adapter(opened, opened.recipe.evaluation, with_agreement=False, report=print, progress=False)
    assert again.accuracy == pytest.approx(first.accuracy, abs=1e-6)


def test_an_adapter_that_changes_nothing_is_an_error(train: Train):
    with pytest.raises(Exception, match="changes nothing"):
        train("run", tasks=["subject-similarity"], training={"learning_rate": 1e-30, "max_steps": 1})


def test_pictures_drawn_while_training_change_nothing_in_it(train: Train, tmp_path: Path):
    from safetensors.torch import load_file

    train("plain", tasks=[])
    train("watched", tasks=[], training={"draw_every_steps": 2, "draw_prompts": 1})
    plain, watched = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("plain", "watched")
    )
    assert all(torch.equal(plain[name], watched[name]) for name in plain)
    steps = sorted(path.name for path in (tmp_path / "watched" / "pictures").iterdir())
    assert steps == ["step-000002", "step-000004"]
    assert len(read_pictures(tmp_path / "watched" / "pictures" / "step-000002")) == 1


def test_class_pictures_are_drawn_once_by_the_untrained_model_and_kept(train: Train, tmp_path: Path):
    data = {"class_prompt": "a photo of a dog", "class_pictures": 3, "class_folder": str(tmp_path / "dogs")}
    train("first", tasks=[], data=data)
    pictures = read_pictures(tmp_path / "dogs")
    assert [one.request.prompt for one in pictures] == ["a photo of a dog"] * 3
    written = [one.path.stat().st_mtime_ns for one in pictures]
    train("second", tasks=[], data=data)
    assert [one.path.stat().st_mtime_ns for one in read_pictures(tmp_path / "dogs")] == written


@pytest.mark.parametrize(
    ("tasks", "evaluation", "message"),
    [
        (["subject-similarty"], {}, "subject-similarity"),
        (["background"], {}, "emoji:"),
        (["subject-similarity"], {"subject": None}, "name the subject"),
    ],
)
def test_measures_that_cannot_be_made_are_refused_before_training(
    tasks: list[str], evaluation: dict[str, Any], message: str, train: Train, tmp_path: Path
):
    with pytest.raises(Exception, match=message):
        train("run", tasks=tasks, evaluation=evaluation)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_subject_of_the_package_is_read_by_rules(train: Train, tmp_path: Path):
    tasks = ["background", "place", "size", "count", "identity-by-colour"]
    evaluation = {"prompts": "emoji:fox", "subject": None, "class_name": None, "limit": 3, "seeds": 1}
    record = train("run", tasks=tasks, data={"train": "emoji:fox", "prompt": None}, evaluation=evaluation)
    real = {one.task: one.accuracy for one in record.evaluations if one.when == "real pictures"}
    assert set(real) == set(tasks)
    assert all(one.scored is not None for one in record.evaluations)
    chances = {one.task: one.chance for one in record.evaluations}
    assert chances == pytest.approx(dict(zip(tasks, (1 / 8, 1 / 5, 1 / 3, 1 / 3, 1 / 313), strict=True)))


def test_likeness_to_the_base_needs_a_base(train: Train):
    with pytest.raises(ConfigError, match="full"):
        train("run", tasks=["likeness-to-base"], adapter={"method": "full", "parts": None})
