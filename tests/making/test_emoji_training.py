import json
import os
import signal

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionXLPipeline

import making.emoji_scenes
import making.emoji_training
from making.emoji_export import export
from making.emoji_measure import measure, save, shares_right
from making.emoji_scenes import latents, random_scene
from making.emoji_training import Settings, Training
from moslora.emoji.identity import Gallery, colour_histogram
from moslora.emoji.scenes import render
from tests.making.test_emoji_parts import TINY

SETTINGS = Settings(steps=6, words_steps=0, batch_size=2, warm_up=2, scenes=8, shape=TINY)


def some_latents(numbers):
    return torch.randn(len(numbers), 4, 16, 16, generator=torch.Generator().manual_seed(numbers.start)).half()


def training(folder, *, settings=SETTINGS, resumed=False, given=some_latents):
    folder.mkdir(exist_ok=True)
    made = Training(folder, settings=settings, latents=given)
    if resumed:
        made.resume()
    return made


@pytest.fixture(autouse=True)
def _logs_every_second_step(monkeypatch):
    monkeypatch.setattr(making.emoji_training, "_LOG_EVERY", 2)
    monkeypatch.setattr(making.emoji_training, "_VALIDATE_EVERY", 4)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training(folder).run(minutes=10)
    return folder


def logged(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def kept(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def test_interrupted_training_ends_bit_for_bit_where_uninterrupted_does(tmp_path):
    training(tmp_path / "whole").run(minutes=10)
    training(tmp_path / "halves").run(minutes=10, steps=3)
    training(tmp_path / "halves", resumed=True).run(minutes=10)
    whole, halves = kept(tmp_path / "whole"), kept(tmp_path / "halves")
    assert whole["step"] == halves["step"] == 6
    for part in ("parts", "average"):
        assert whole[part].keys() == halves[part].keys()
        assert all(torch.equal(value, halves[part][name]) for name, value in whole[part].items())
    assert logged(tmp_path / "whole") == logged(tmp_path / "halves")
    assert [line["step"] for line in logged(tmp_path / "whole")] == [2, 4, 6]
    assert "validation_loss" in logged(tmp_path / "whole")[1]


def test_training_moves_every_part_but_what_feeds_nothing(tmp_path):
    made = training(tmp_path)
    before = {name: value.clone() for name, value in made.parts.state_dict().items()}
    made.run(minutes=10, steps=2)
    still = {name for name, value in made.parts.state_dict().items() if torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in still} == {"text_encoder"}
    assert all(".layers.1." in name or "final_layer_norm" in name for name in still)


def test_the_text_encoders_learn_at_their_share_of_the_rate(tmp_path):
    made = training(tmp_path, settings=Settings(**{**vars(SETTINGS), "text_share": 0.25, "weight_decay": 0.0}))
    before = {name: value.clone() for name, value in made.parts.named_parameters()}
    made.run(minutes=10, steps=1)
    moved = {name: (value - before[name]).abs().max().item() for name, value in made.parts.named_parameters()}
    most = {part: max(move for name, move in moved.items() if name.startswith(f"{part}.")) for part in made.parts}
    assert most["text_encoder"] == pytest.approx(most["unet"] / 4, rel=0.01)
    assert most["text_encoder_2"] == pytest.approx(most["unet"] / 4, rel=0.01)


def test_validation_hears_a_wrong_background_place_or_concept(tmp_path):
    made = training(tmp_path)
    losses = [made.validation_loss(wrong=wrong) for wrong in (None, "background", "place", "concept")]
    assert len(set(losses)) == 4
    assert losses[0] == made.validation_loss()


def test_a_signal_to_end_saves_and_restores_what_signals_did(tmp_path):
    def asking(numbers):
        os.kill(os.getpid(), signal.SIGTERM)
        return some_latents(numbers)

    before = signal.getsignal(signal.SIGTERM)
    training(tmp_path, given=asking).run(minutes=10)
    assert kept(tmp_path)["step"] == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_settings_are_refused_on_resuming_but_more_steps_are_not(run):
    other = Settings(**{**vars(SETTINGS), "learning_rate": 0.5})
    with pytest.raises(SystemExit, match=r"^the checkpoint's settings are .*use another folder$"):
        training(run, settings=other, resumed=True)
    longer = training(run, settings=Settings(**{**vars(SETTINGS), "steps": 60}), resumed=True)
    assert longer.step == 6


def test_the_learning_rate_rises_stays_and_falls_to_zero():
    rates = [Settings(steps=100, warm_up=10, decay=0.3, learning_rate=1.0).rate(step) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert set(rates[10:71]) == {1.0}
    assert rates[85] == pytest.approx(0.5)
    assert rates[100] == 0


def test_latents_are_drawn_once_and_do_not_depend_on_how_many_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(making.emoji_scenes, "_CHUNK", 2)
    torch.manual_seed(0)
    coder = AutoencoderTiny().eval()
    some = latents(range(3), 0, folder=tmp_path, coder=coder)
    assert (some.shape, some.dtype) == ((3, 4, 16, 16), torch.float16)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = latents(range(4), 0, folder=tmp_path, coder=coder)
    assert torch.equal(again[:3], some)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
    alone = render(random_scene(2, 0), seed=2)
    pixels = torch.from_numpy(np.array(alone)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(coder.encode(pixels).latents.half()[0], some[2], atol=2e-3, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
def test_an_export_is_a_plain_pipeline_with_the_averaged_weights_and_can_be_measured(run, tmp_path):
    torch.manual_seed(0)
    export(run, tmp_path, coder=AutoencoderTiny())
    plain = StableDiffusionXLPipeline.from_pretrained(tmp_path, dtype=torch.float32, add_watermarker=False)
    for name, value in kept(run)["average"].items():
        part, rest = name.split(".", 1)
        torch.testing.assert_close(getattr(plain, part).state_dict()[rest], value.half().to(value.dtype))
    assert json.loads((tmp_path / "training.json").read_text())["step"] == 6
    assert "\n6 steps of 2 pictures, seed 0" in (tmp_path / "CREDITS.md").read_text()
    assert "Ollin Boer Bohan" in (tmp_path / "vae" / "LICENSE.txt").read_text()
    figures, sheet = measure(plain, trained=2, each=1)
    save(tmp_path, figures, sheet)
    assert (figures["drawn"]["pictures"], figures["held_out"]["pictures"]) == (2, 8)
    assert json.loads((tmp_path / "measures.json").read_text()) == {"step": 6, **figures}


def test_real_scenes_are_right_and_empty_pictures_are_not():
    scenes = [random_scene(number, 0) for number in range(12)]
    gallery = Gallery(colour_histogram)
    pictures = [render(scene, seed=seed) for seed, scene in enumerate(scenes)]
    right = shares_right(pictures, scenes, gallery)
    assert right.pop("pictures") == 12
    assert min(right.values()) >= 0.9
    empty = shares_right([picture.resize((1, 1)).resize((128, 128)) for picture in pictures], scenes, gallery)
    assert empty["place"] == empty["size"] == empty["count"] == empty["colours: concept in first 5"] == 0
