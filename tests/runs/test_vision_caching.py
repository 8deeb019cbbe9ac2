"""A frozen tower's features are kept as files: training reads them and comes to the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from transformers import CLIPVisionModel

from moslora.data.images import open_image
from moslora.errors import ConfigError, DataError, OutputError
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder
from moslora.runs.kinds.vision_caching import check_cacheable, features_of
from moslora.runs.models import load_model
from moslora.runs.recipe import load_recipe
from moslora.runs.run import plan_run, run_recipe
from moslora.training.cached_tower import CachedTower, Features, cached_tower

TOWER = "model.vision_tower"
PART = {"target_modules": "all-linear", "r": 4, "lora_alpha": 8}
ONLY = {"parts": None, "projector": "only"}
LANGUAGE = {"parts": {"language": PART}, "projector": "frozen"}
BOTH = {"parts": {"language": PART}, "projector": "trained"}
PICTURES, GREY = 12, 1  # of the training samples, and the one that a batch of text is given


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where features are kept, empty."""
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of pictures in each of the tower's forward passes."""
    found: list[int] = []
    original: Any = CLIPVisionModel.forward

    def counting(self: CLIPVisionModel, pixel_values: torch.Tensor, *given: Any, **options: Any) -> Any:
        found.append(len(pixel_values))
        return original(self, pixel_values, *given, **options)

    monkeypatch.setattr(CLIPVisionModel, "forward", counting)
    return found


Train = Callable[..., RunRecord]


@pytest.fixture
def train(tmp_path: Path, write_vision: Callable[..., Path], picture_data: Path, cache: Path) -> Train:
    """Train the tiny recipe in the folder `name`, with or without kept features; nothing is scored.

    Of its samples more are of text alone, so that a batch of them comes.
    """
    samples = json.loads((picture_data / "train.json").read_text())
    source = picture_data / "more.json"
    source.write_text(json.dumps([*samples, *({**samples[-1], "id": str(number)} for number in range(5))]))

    def run(name: str, adapter: dict[str, Any] = ONLY, *, is_cached: bool = True, resume: bool = False) -> RunRecord:
        path = write_vision(
            name,
            adapter=adapter,
            data={"train": str(source), "cache_features": is_cached, "validation_samples": 2},
            training={"optimizer": "sgd", "learning_rate": 0.5, "evaluate_every_steps": 2, "max_steps": 6},
            evaluation={"tasks": [], "batch_size": 3},
        )
        return run_recipe(load_recipe(path), tmp_path / name, resume=resume, progress=False)

    return run


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """What a run trained."""
    (file,) = [*run.glob("adapter/*.safetensors"), *run.glob("projector/*.safetensors")]
    return load_file(file)


def losses(run: Path) -> list[tuple[int, str, float]]:
    """Every loss that a run logged, of training and of validation."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], name, line[name]) for line in lines for name in ("loss", "eval_loss") if name in line]


def files(cache: Path) -> list[Path]:
    """The pictures' files."""
    return sorted(cache.glob("*/*/*.safetensors"))


@pytest.fixture
def features(write_vision: Callable[..., Path], cache: Path, tmp_path: Path) -> Callable[..., Features]:
    """The features of the tiny model's tower, after `change` of its model."""

    def made(*settings: str, change: Callable[[Any], Any] = lambda _model: None) -> Features:
        recipe = load_recipe(write_vision(adapter=ONLY), ["data.cache_features=true", *settings])
        plan = plan_run(recipe, RunFolder(tmp_path / "plan"))
        model: Any = load_model(recipe.model)
        change(model)
        return features_of(model, plan.processor, tower=TOWER, arguments=plan.arguments)

    return made


@pytest.mark.parametrize("adapter", [ONLY, LANGUAGE, BOTH], ids=["projector", "language", "both"])
def test_training_on_kept_features_comes_to_the_same(
    train: Train, tmp_path: Path, seen: list[int], adapter: dict[str, Any]
):
    train("plain", adapter, is_cached=False)
    seen.clear()
    record = train("cached", adapter)
    assert sum(seen) == PICTURES + (GREY if adapter is ONLY else 0)
    expected, found = tensors(tmp_path / "plain"), tensors(tmp_path / "cached")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert losses(tmp_path / "plain")[0][2] != pytest.approx(losses(tmp_path / "plain")[-2][2], rel=1e-3)  # it learnt
    plain, cached = losses(tmp_path / "plain"), losses(tmp_path / "cached")
    assert [one[:2] for one in cached] == [one[:2] for one in plain]
    assert [one[2] for one in cached] == pytest.approx([one[2] for one in plain], rel=1e-5)
    assert record.validation_loss == pytest.approx(RunRecord.load(tmp_path / "plain" / "run.json").validation_loss)


def test_another_run_reads_what_is_kept(train: Train, tmp_path: Path, seen: list[int], cache: Path):
    train("first")
    times = {file: file.stat().st_mtime_ns for file in files(cache)}
    assert len(times) == PICTURES + GREY
    seen.clear()
    train("second")
    train("language", LANGUAGE)
    assert not seen
    assert {file: file.stat().st_mtime_ns for file in files(cache)} == times
    first, second = tensors(tmp_path / "first"), tensors(tmp_path / "second")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_damaged_and_missing_files_alone_are_computed_again(train: Train, tmp_path: Path, seen: list[int], cache: Path):
    train("first")
    kept = {file: file.read_bytes() for file in files(cache)}
    cut, changed, missing, *_ = kept
    cut.write_bytes(kept[cut][:-40])
    changed.write_bytes(kept[changed][:-1] + bytes([kept[changed][-1] ^ 1]))
    missing.unlink()
    seen.clear()
    train("second")
    assert sum(seen) == 3
    for file, content in kept.items():
        torch.testing.assert_close(load_file(file)["features"], load(content)["features"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tensors(tmp_path / "second"), tensors(tmp_path / "first"), rtol=1e-5, atol=1e-6)


def test_an_interrupted_run_goes_on_with_what_is_kept(train: Train, tmp_path: Path, seen: list[int]):
    train("whole")
    train("cut")
    cut = RunFolder(tmp_path / "cut")
    (cut.checkpoints / "checkpoint-6" / "trainer_state.json").unlink()
    record = cut.record()
    record.status, record.artifacts = "interrupted", {}
    record.save(cut.record_path)
    seen.clear()
    assert train("cut", resume=True).status == "finished"
    assert not seen
    whole, again = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())


def test_the_tower_is_back_when_answers_are_scored(
    write_vision: Callable[..., Path], tmp_path: Path, seen: list[int], cache: Path
):
    def answers(name: str, *, is_cached: bool) -> list[Any]:
        path = write_vision(name, adapter=BOTH, data={"cache_features": is_cached}, training={"optimizer": "sgd"})
        record = run_recipe(load_recipe(path), tmp_path / name, progress=False)
        return [(one.task, one.when, one.accuracy) for one in record.evaluations]

    expected = answers("plain", is_cached=False)
    seen.clear()
    assert answers("cached", is_cached=True) == expected
    assert sum(seen) == PICTURES + 2 * 6  # training's, and six questions asked twice


def test_the_tower_comes_back_after_an_error(features: Callable[..., Features]):
    models: list[Any] = []
    kept = features(change=models.append)
    (model,) = models
    with pytest.raises(AttributeError, match="'CachedTower' object has no attribute 'config'"):
        _in_training(model, kept)
    assert model.get_submodule(TOWER) is kept.tower
    assert isinstance(kept.tower, CLIPVisionModel)


def _in_training(model: Any, kept: Features) -> None:
    with cached_tower(model, TOWER, kept):
        model.get_submodule(TOWER).config  # noqa: B018 - which it does not have


@torch.no_grad()
def test_features_of_another_tower_processor_layer_or_precision_are_kept_apart(features: Callable[..., Features]):
    def nudge(model: Any) -> None:
        next(reversed([*model.get_submodule(TOWER).parameters()])).add_(1e-3)

    def activation(model: Any) -> None:
        model.get_submodule(TOWER).config.hidden_act = "gelu"

    def several(model: Any) -> None:
        model.config.vision_feature_layer = [-2, -3]

    assert features().folder == features("seed=9", "training.learning_rate=1e-3").folder
    found = [
        features(),
        features(change=nudge),
        features(change=activation),
        features(change=several),
        features("model.padding=square"),
        features("training.precision=bf16"),
        features("model.dtype=bfloat16"),
    ]
    assert len({one.folder for one in found}) == len(found)


def test_several_layers_are_read_by_their_numbers(features: Callable[..., Features], picture_data: Path):
    kept = features(change=lambda model: setattr(model.config, "vision_feature_layer", [-2, 1]))
    pictures = [(str(picture_data / "easy-vqa" / "images" / f"{number}.png"), "sample") for number in (0, 1)]
    values = kept(pictures)["pixel_values"]
    assert values.shape == (2, 2, 17, 32)
    states: Any = CachedTower(kept.layers)(values).hidden_states
    with torch.no_grad():
        opened = [open_image(image, place=place) for image, place in pictures]
        seen = kept.processor.image_processor(opened, return_tensors="pt")["pixel_values"]
        right: Any = kept.tower(seen, output_hidden_states=True).hidden_states
    for layer in (-2, 1):
        torch.testing.assert_close(states[layer], right[layer], rtol=1e-5, atol=1e-6)
    assert kept([]) == {}


def test_a_disk_without_room_is_told_early(
    features: Callable[..., Features], picture_data: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("moslora.training.cached_tower.SPARE_BYTES", 2**70)
    with pytest.raises(OutputError, match=r"the features need 0\.0 GB and the disk of .* set MOSLORA_CACHE"):
        features().fill([(str(picture_data / "easy-vqa/images/0.png"), "sample 1")], batch_size=1, progress=False)


def test_a_cache_that_cannot_be_written_is_one_line(features: Callable[..., Features], picture_data: Path, cache: Path):
    kept = features()
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"cannot write to .*features.*: set MOSLORA_CACHE to another folder"):
        kept([(str(picture_data / "easy-vqa/images/0.png"), "sample 1")])


@pytest.mark.parametrize("adapter", [{}, {"method": "full", "parts": None, "projector": None}])
def test_a_tower_that_is_trained_is_refused(write_vision: Callable[..., Path], tmp_path: Path, adapter: dict[str, Any]):
    recipe = load_recipe(write_vision(adapter=adapter), ["data.cache_features=true"])
    with pytest.raises(ConfigError, match=r"the vision tower is trained \(\d+ tensors, model.vision_tower.* first\)"):
        plan_run(recipe, RunFolder(tmp_path / "run"))


def test_models_of_tiles_and_towers_that_draw_at_random_are_refused(write_vision: Callable[..., Path]):
    model: Any = load_model(load_recipe(write_vision()).model)
    model.requires_grad_(False)
    check_cacheable(model, TOWER)
    model.config.vision_config.attention_dropout = 0.1
    with pytest.raises(ConfigError, match=r"drawn at random in training \(attention_dropout 0.1\)"):
        check_cacheable(model, TOWER)
    model.config.model_type = "llava_next"
    with pytest.raises(ConfigError, match=r"a 'llava_next' model cuts pictures into tiles.*allowed: 'llava'"):
        check_cacheable(model, TOWER)


def test_two_processes_train_on_kept_features_as_one_does_on_pixels(
    write_vision: Callable[..., Path],
    tmp_path: Path,
    picture_data: Path,
    cache: Path,
    in_two_processes: Callable[..., str],
):
    source = picture_data / "pictures.json"
    source.write_text(json.dumps(json.loads((picture_data / "train.json").read_text())[:PICTURES]))
    changes: dict[str, Any] = {
        "training": {"optimizer": "sgd", "learning_rate": 0.5, "max_steps": 3},
        "evaluation": {"tasks": []},
    }
    plain = load_recipe(write_vision("plain", adapter=BOTH, data={"train": str(source)}, **changes))
    run_recipe(plain, tmp_path / "plain", progress=False)
    path = write_vision("two", adapter=BOTH, data={"train": str(source), "cache_features": True}, **changes)
    in_two_processes("train", path, "--output", tmp_path / "two")
    assert len(files(cache)) == PICTURES
    torch.testing.assert_close(tensors(tmp_path / "two"), tensors(tmp_path / "plain"), rtol=1e-3, atol=1e-4)


def test_a_picture_whose_pixels_are_broken_is_named_with_its_sample(
    train: Train, picture_data: Path, seen: list[int], cache: Path
):
    broken = picture_data / "easy-vqa" / "images" / "7.png"
    content = broken.read_bytes()
    start = content.index(b"IDAT") + 4
    broken.write_bytes(content[:start] + b"\0" * 8 + content[start + 8 :])
    with pytest.raises(DataError, match=r"more\.json: sample 8: image '.*7\.png': broken"):
        train("run")
    assert sum(seen) == len(files(cache)) < PICTURES
