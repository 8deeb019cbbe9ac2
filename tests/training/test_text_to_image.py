"""What a text-to-image model is trained on: latents, noise, targets, weights, and what it is told of each picture."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from moslora.data.cropping import buckets, cut_for, cut_out, nearest_bucket, told_sizes
from moslora.data.images import ImageHeader, open_image
from moslora.data.photos import read_photos
from moslora.errors import ConfigError, DataError
from moslora.runs.models import load_model
from moslora.runs.pipelines import load_tokenizers
from moslora.runs.recipe import model_settings
from moslora.training.diffusion import TextToImage
from moslora.training.layouts import layout_of, prompt_ids
from moslora.training.noise import Diffusion, Flow, schedule_of
from moslora.training.shots import Batches, Encoder, Shot, kept_conditions
from moslora.training.visits import Visit, Visits
from tests.subjects import write_photo

PROMPT = "a photo of sks dog"
Load = Callable[[str], TextToImage]


@pytest.fixture
def load(pipelines: Callable[[str], Path]) -> Load:
    """A tiny model of a layout."""
    return lambda layout: load_model(model_settings("subject", path=str(pipelines(layout)), dtype="float32"))


@pytest.fixture
def shots(photos: Path, pipelines: Callable[[str], Path]) -> Callable[..., list[Shot]]:
    """The five pictures as shots of a layout's model."""

    def made(layout: str, *, shape: tuple[int, int] = (32, 32)) -> list[Shot]:
        path = str(pipelines(layout))
        tokenizers = load_tokenizers(model_settings("subject", path=path))  # pyright: ignore[reportArgumentType]
        ids = prompt_ids(PROMPT, tokenizers, layout_of(CLASSES[layout])).by_encoder
        return [Shot(photo, shape, ids) for photo in read_photos(photos, prompt=PROMPT)]

    return made


CLASSES = {
    "sdxl": "StableDiffusionXLPipeline",
    "sd15": "StableDiffusionPipeline",
    "sd3": "StableDiffusion3Pipeline",
}


@pytest.mark.parametrize("layout", CLASSES)
def test_a_prompt_means_in_training_what_it_means_when_drawing(layout: str, load: Load, shots: Any):
    model = load(layout)
    condition = next(iter(kept_conditions(model, shots(layout)[:1]).values()))
    with torch.no_grad():
        if layout == "sd15":
            tokens, pooled = model.pipeline().encode_prompt(PROMPT, "cpu", 1, False)[0], None
        elif layout == "sd3":
            tokens, _, pooled, _ = model.pipeline().encode_prompt(PROMPT, None, None)
        else:
            tokens, _, pooled, _ = model.pipeline().encode_prompt(PROMPT)
    assert torch.allclose(condition["tokens"], tokens[0], atol=1e-6)
    if pooled is not None:
        assert torch.allclose(condition["pooled"], pooled[0], atol=1e-6)


def test_noise_and_targets_are_those_of_the_scheduler_of_diffusers():
    from diffusers import DDPMScheduler

    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64)
    for prediction in ("epsilon", "v_prediction", "sample"):
        theirs = DDPMScheduler(prediction_type=prediction)
        ours = schedule_of(theirs)
        at = torch.tensor([321])
        expected = theirs.add_noise(latents[None], noise[None], at)[0]
        assert torch.allclose(ours.noisy(latents, noise, 321.0), expected, atol=1e-6)
        wanted = {
            "epsilon": noise,
            "v_prediction": theirs.get_velocity(latents[None], noise[None], at)[0],
            "sample": latents,
        }[prediction]
        assert torch.allclose(ours.target(latents, noise, 321.0), wanted, atol=1e-6)


def test_min_snr_weights_are_those_of_the_paper():
    kept = torch.tensor([0.99, 0.5, 0.01], dtype=torch.float64)
    for timestep, share in enumerate(kept.tolist()):
        ratio = share / (1 - share)
        counted = min(ratio, 5.0)
        noise = Diffusion(kept, "epsilon").weight(timestep, min_snr_gamma=5.0)
        velocity = Diffusion(kept, "v_prediction").weight(timestep, min_snr_gamma=5.0)
        assert noise == pytest.approx(counted / ratio)
        assert velocity == pytest.approx(counted / (ratio + 1))
    assert Diffusion(kept, "epsilon").weight(0, min_snr_gamma=None) == 1.0


def test_a_flow_is_a_straight_line_drawn_more_often_in_its_middle():
    from diffusers import FlowMatchEulerDiscreteScheduler

    flow = schedule_of(FlowMatchEulerDiscreteScheduler(shift=3.0))
    assert isinstance(flow, Flow)
    latents, noise = torch.zeros(1), torch.ones(1)
    middle = flow.timestep(0.5)
    assert flow.noisy(latents, noise, middle).item() == pytest.approx(middle / 1000, abs=1e-6)
    assert flow.target(latents, noise, middle).item() == 1.0
    assert [flow.timestep(place) for place in (0.0, 1.0)] == [flow.timesteps[0], flow.timesteps[-1]]
    plain = schedule_of(FlowMatchEulerDiscreteScheduler(shift=1.0))
    drawn = [plain.timestep((number + 0.5) / 2000) / 1000 for number in range(2000)]
    assert np.mean([0.3 < one < 0.7 for one in drawn]) == pytest.approx(0.603, abs=0.02)  # of a logit-normal
    with pytest.raises(ConfigError, match="a flow"):
        flow.weight(middle, min_snr_gamma=5.0)


@pytest.mark.parametrize("size", [1, 2])
def test_the_loss_is_the_subjects_mean_and_the_class_mean_times_its_weight(size: int, load: Load, shots: Any):
    model, own = load("sdxl"), shots("sdxl")
    batches = Batches(model, Encoder(model, keeps=True), seed=3, beside=own[3:], prior_weight=0.5, min_snr_gamma=5.0)
    batch = batches([Visit(own[number], number) for number in range(size)])
    with torch.no_grad():
        found = model(**batch)
        losses, weights = [], []
        for place, timestep in enumerate(batch["timesteps"].tolist()):
            one = {"noisy": [batch["noisy"][place]], "timesteps": torch.tensor([timestep])}
            one |= {"sizes": batch["sizes"][place : place + 1]}
            one |= {"ids": {name: ids[place : place + 1] for name, ids in batch["ids"].items()}}
            predicted = model(**one).prediction[0].movedim(-1, 0)
            losses.append((predicted - batch["targets"][place]).square().mean().item())
            weights.append(model.schedule.weight(timestep, min_snr_gamma=5.0))
    weighted = [loss * weight for loss, weight in zip(losses, weights, strict=True)]
    expected = np.mean(weighted[:size]) + 0.5 * np.mean(weighted[size:])
    assert len(losses) == 2 * size
    assert found.loss.item() == pytest.approx(expected, rel=1e-4)


def test_what_chance_decides_of_a_visit_does_not_depend_on_the_batches(load: Load, shots: Any):
    model = load("sdxl")
    visits = Visits(shots("sdxl"), seed=7, count=12)

    def seen(size: int) -> list[dict[str, Any]]:
        batches = Batches(model, Encoder(model, keeps=False), seed=7, is_random=True, may_flip=True)
        made = (batches([visits[n] for n in range(start, start + size)]) for start in range(0, 12, size))
        return [
            {"noisy": batch["noisy"][place], "time": batch["timesteps"][place], "sizes": batch["sizes"][place]}
            for batch in made
            for place in range(size)
        ]

    for one, other in zip(seen(1), seen(4), strict=True):
        assert torch.equal(one["noisy"], other["noisy"])
        assert one["time"] == other["time"]
        assert torch.equal(one["sizes"], other["sizes"])
    assert len({one["time"].item() for one in seen(4)}) > 6


def test_every_picture_is_visited_as_often_as_any_other(shots: Any):
    own = shots("sdxl")
    names = [visit.row.photo.name for visit in map(Visits(own, seed=1, count=20).__getitem__, range(20))]
    assert {names.count(shot.photo.name) for shot in own} == {4}
    assert names[:5] != names[5:10]


def test_pictures_of_several_shapes_share_a_batch(load: Load, shots: Any):
    model = load("sdxl")
    mixed = [*shots("sdxl")[:2], *shots("sdxl", shape=(48, 32))[2:4]]
    batch = Batches(model, Encoder(model, keeps=True), seed=0)([Visit(one, n) for n, one in enumerate(mixed)])
    with torch.no_grad():
        found = model(**batch).losses
        alone = [
            model(
                noisy=[batch["noisy"][n]],
                timesteps=batch["timesteps"][n : n + 1],
                sizes=batch["sizes"][n : n + 1],
                targets=[batch["targets"][n]],
                ids={name: ids[n : n + 1] for name, ids in batch["ids"].items()},
            ).losses[0]
            for n in range(4)
        ]
    assert {tuple(one.shape) for one in batch["noisy"]} == {(4, 16, 16), (4, 16, 24)}
    assert torch.allclose(found, torch.stack(alone), rtol=1e-4)


def test_kept_latents_and_captions_belong_to_their_pictures_in_every_order(load: Load, shots: Any, tmp_path: Path):
    model, own = load("sdxl"), shots("sdxl")
    other = write_photo(tmp_path / "more" / "a cat.png", seed=9)
    tokenizers = load_tokenizers(model_settings("subject", path=model.path))  # pyright: ignore
    ids = prompt_ids("a cat", tokenizers, model.layout).by_encoder
    own.append(Shot(read_photos(other.parent)[0], (32, 32), ids))
    kept = Batches(model, Encoder(model, keeps=True), seed=5, conditions=kept_conditions(model, own))
    fresh = Batches(model, Encoder(model, keeps=False), seed=5)
    visits = Visits(own, seed=5, count=24)
    for start in range(0, 24, 4):
        rows = [visits[number] for number in range(start, start + 4)]
        ours, theirs = kept(rows), fresh(rows)
        assert all(torch.equal(a, b) for a, b in zip(ours["noisy"], theirs["noisy"], strict=True))
        with torch.no_grad():
            assert torch.allclose(model(**ours).losses, model(**theirs).losses, rtol=1e-4)


def test_each_picture_has_its_own_sizes_the_class_too(load: Load, shots: Any, tmp_path: Path):
    model, own = load("sdxl"), shots("sdxl")
    lying = write_photo(tmp_path / "class" / "a dog.png", size=(96, 64))
    beside = [Shot(photo, (32, 32), own[0].ids) for photo in read_photos(lying.parent)]
    batch = Batches(model, Encoder(model, keeps=True), seed=0, beside=beside)([Visit(own[4], 0)])
    assert batch["sizes"].tolist() == [[48, 80, 0, 10, 32, 32], [64, 96, 0, 8, 32, 32]]


def test_a_cut_is_mirrored_first_so_that_its_place_is_true(tmp_path: Path):
    image = Image.new("RGB", (64, 32), "black")
    image.paste("red", (0, 0, 8, 32))  # the left edge
    path = tmp_path / "marked.png"
    image.save(path)
    header = ImageHeader(64, 32)
    for seed in range(40):
        cut = cut_for(header, (32, 32), generator=torch.Generator().manual_seed(seed), is_random=True, may_flip=True)
        pixels = cut_out(open_image(str(path), place="test"), cut, (32, 32))
        columns = (pixels[0] > 0).all(dim=0)
        marked = range(56, 64) if cut.is_flipped else range(8)
        expected = [column + cut.left in marked for column in range(32)]
        assert columns.tolist() == expected
        assert told_sizes(header, cut, (32, 32)) == [32, 64, 0, cut.left, 32, 32]


def test_a_cameras_rotation_is_applied(tmp_path: Path, shots: Any):
    image = Image.new("RGB", (64, 32), "black")
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = 6
    folder = tmp_path / "rotated"
    folder.mkdir()
    image.save(folder / "standing.jpg", exif=exif)
    photo = read_photos(folder, prompt=PROMPT)[0]
    assert photo.header == ImageHeader(32, 64)
    cut = cut_for(photo.header, (32, 32))
    assert told_sizes(photo.header, cut, (32, 32)) == [64, 32, 16, 0, 32, 32]


def test_latents_that_are_not_finite_name_the_file(load: Load, shots: Any):
    model, own = load("sdxl"), shots("sdxl")
    with torch.no_grad():
        next(model.autoencoder.encoder.parameters()).fill_(math.inf)
    with pytest.raises(DataError, match=r"dog_2\.png.*autoencoder_dtype"):
        Batches(model, Encoder(model, keeps=True), seed=0)([Visit(own[2], 0)])


def test_buckets_keep_the_area_and_the_shape():
    found = buckets(512, step=64)
    assert (512, 512) in found
    assert all(width * height <= 512 * 512 and width % 64 == height % 64 == 0 for width, height in found)
    assert all(max(shape) <= 2 * min(shape) for shape in found)
    assert nearest_bucket(ImageHeader(1500, 1000), found) == (576, 384) or nearest_bucket(
        ImageHeader(1500, 1000), found
    ) == (640, 384)
    assert nearest_bucket(ImageHeader(700, 700), found) == (512, 512)


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({"red_car-2.png": None}, {}, "red car"),
        ({"a.png": None, "a.txt": " a red\ncar "}, {}, "a red car"),
        ({"a.png": None, "a.txt": "a red car"}, {"prompt": "a sks car"}, "a sks car"),
        ({"a.png": None, "a.txt": "a red car"}, {"prompt": "no", "captions": "files"}, "a red car"),
    ],
)
def test_captions_come_from_names_files_or_one_prompt(
    tmp_path: Path, files: dict[str, str | None], options: dict[str, str], expected: str
):
    for name, text in files.items():
        write_photo(tmp_path / name) if text is None else (tmp_path / name).write_text(text, encoding="utf-8")
    assert [photo.caption for photo in read_photos(tmp_path, **options)] == [expected]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({}, {}, "holds no picture"),
        ({"a.png": None, "b.png": None, "a.txt": "x"}, {}, "no caption .*b.txt"),
        ({"a.png": None, "a.txt": " "}, {}, "is empty"),
        ({"123.png": None}, {}, "is not a caption"),
        ({"a.png": None}, {"captions": "prompt"}, "needs data.prompt"),
    ],
)
def test_a_picture_without_a_caption_is_refused_by_name(
    tmp_path: Path, files: dict[str, str | None], options: dict[str, str], message: str
):
    for name, text in files.items():
        write_photo(tmp_path / name) if text is None else (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_photos(tmp_path, **options)
