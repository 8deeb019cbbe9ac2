"""The processor that a model's pictures go through, against what it does with real pixels."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    CLIPVisionConfig,
    InternVLConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaProcessor,
    PaliGemmaConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from moslora.errors import ConfigError
from moslora.runs.processors import check_same_processing, describe_processor, image_tokens, load_processor

TINY_LLAMA = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SIZES = [(28, 28), (60, 20), (20, 60), (1, 1), (13, 7), (7, 130), (333, 250), (56, 57), (500, 29)]
Write = Callable[..., tuple[Path, Any]]


@pytest.fixture
def write(tmp_path: Path, tower_folder: Callable[[str], Path], tiny_tokenizer: PreTrainedTokenizerFast) -> Write:
    """A folder with a processor whose file says `numbers`, and the configuration of its model."""

    def make(tower: str = "clip", *, strategy: str = "default", **numbers: Any) -> tuple[Path, Any]:
        vision = AutoConfig.from_pretrained(tower_folder(tower))
        config = LlavaConfig(
            vision_config=vision,
            text_config=LlamaConfig(**TINY_LLAMA),
            image_token_index=259,
            vision_feature_select_strategy=strategy,
        )
        images = AutoImageProcessor.from_pretrained(tower_folder(tower), backend="pil")
        LlavaProcessor(images, with_image_token(tiny_tokenizer), **numbers).save_pretrained(tmp_path)
        return tmp_path, config

    return make


def with_image_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    return tokenizer


@pytest.fixture
def tiles(tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerFast) -> tuple[Path, LlavaNextConfig]:
    """A LLaVA-NeXT folder without weights, whose pictures become tiles of 28 x 28 pixels."""
    pinpoints = [[28, 56], [56, 28], [56, 56], [84, 28]]
    sizes: Any = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=7, **sizes),
        text_config=LlamaConfig(**TINY_LLAMA),
        image_token_index=259,
        image_grid_pinpoints=pinpoints,
    )
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=pinpoints
    )
    LlavaNextProcessor(images, with_image_token(tiny_tokenizer)).save_pretrained(tmp_path)
    return tmp_path, config


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("tower", "strategy", "tokens"),
    [("clip", "default", 16), ("clip", "full", 17), ("siglip", "full", 16), ("dinov2", "default", 16)],
)
@pytest.mark.parametrize("pad", ["own", "square", "crop"])
def test_numbers_that_the_file_leaves_out_come_from_the_model(
    write: Write, tower: str, strategy: str, tokens: int, pad: str
):
    folder, config = write(tower, strategy=strategy)
    processor = load_processor(str(folder), config, pad=pad)
    for width, height in SIZES:
        given = processor(text="<image>", images=picture(width, height), return_tensors="pt")
        assert given["pixel_values"].shape == (1, 3, 28, 28)
        assert (given["input_ids"] == 259).sum() == tokens == image_tokens(processor, width=width, height=height)


def test_tokens_of_tiles_are_counted_without_pixels_as_the_model_makes_features(tiles: tuple[Path, LlavaNextConfig]):
    folder, config = tiles
    processor = load_processor(str(folder), config)
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config).eval()
    counts = set()
    for width, height in SIZES:
        given = processor(text="<image>", images=picture(width, height), return_tensors="pt")
        count = image_tokens(processor, width=width, height=height)
        assert (given["input_ids"] == 259).sum() == count
        with torch.no_grad():
            assert model(**given).logits.isfinite().all()  # raises where features and tokens differ in number
        counts.add(count)
    assert len(counts) > 3


def test_padding_keeps_an_edge_that_the_crop_cuts_off(write: Write):
    folder, config = write()
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, :6] = 255  # white at the left edge only
    seen = {}
    for pad in ("own", "crop", "square"):
        processor = load_processor(str(folder), config, pad=pad)
        values = processor(text="<image>", images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
        mean, std = (torch.tensor(v)[:, None, None] for v in (config_mean(processor), config_std(processor)))
        seen[pad] = values[0] * std + mean  # back to 0..1
    assert torch.equal(seen["own"], seen["crop"])
    assert seen["own"].max() < 0.05
    assert seen["square"][:, 12:16, 0].min() > 0.9
    border = seen["square"][:, 0].mean(dim=1)  # above the picture: the mean colour, in whole 255ths
    assert torch.allclose(border, torch.tensor(config_mean(processor)), atol=1 / 255)


def config_mean(processor: Any) -> tuple[float, ...]:
    return tuple(processor.image_processor.image_mean)


def config_std(processor: Any) -> tuple[float, ...]:
    return tuple(processor.image_processor.image_std)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"patch_size": 16, "num_additional_image_tokens": 1}, "patch_size is 16 and the model needs 7"),
        (
            {"num_additional_image_tokens": 1, "patch_size": 7, "vision_feature_select_strategy": "full"},
            "vision_feature_select_strategy is 'full' and the model needs 'default'",
        ),
        ({"patch_size": 7}, "num_additional_image_tokens is 0 and the model needs 1"),
        ({"image_token": "<|end|>"}, "image_token_id is 2 and the model needs 259"),
    ],
)
def test_a_processor_that_disagrees_with_the_model_is_refused_with_both_values(
    write: Write, numbers: dict[str, Any], message: str
):
    folder, config = write(**numbers)
    with pytest.raises(ConfigError) as error:
        load_processor(str(folder), config)
    assert f"the processor of '{folder}' does not fit the model: {message}" in str(error.value)
    assert "; " not in str(error.value)


def test_an_older_file_that_knows_no_class_token_gets_it_from_the_model(write: Write):
    folder, config = write(patch_size=7, vision_feature_select_strategy="default")
    path = folder / "processor_config.json"
    fields = json.loads(path.read_text())
    del fields["num_additional_image_tokens"]
    path.write_text(json.dumps(fields))
    assert load_processor(str(folder), config).num_additional_image_tokens == 1


def test_pictures_of_another_size_than_the_model_has_positions_for_are_refused(write: Write):
    folder, config = write()
    config.vision_config.image_size = 35
    with pytest.raises(ConfigError, match="become 28 x 28 pixels and the model needs 35 x 35 pixels"):
        load_processor(str(folder), config)


def test_pictures_of_any_shape_are_refused(write: Write):
    folder, config = write()
    path = folder / "processor_config.json"
    images = json.loads(path.read_text())["image_processor"] | {"do_center_crop": False}
    edited(path, image_processor=images)
    with pytest.raises(ConfigError, match="keeps the shape of each picture and the model needs 28 x 28 pixels"):
        load_processor(str(folder), config)
    assert load_processor(str(folder), config, pad="square").image_processor.do_pad


def test_dinov2_takes_whole_patches_of_any_number(write: Write):
    folder, config = write("dinov2")
    config.vision_config.image_size = 518
    assert image_tokens(load_processor(str(folder), config), width=9, height=9) == 16
    path = folder / "processor_config.json"
    images = json.loads(path.read_text())["image_processor"] | {"crop_size": {"height": 28, "width": 27}}
    edited(path, image_processor=images)
    with pytest.raises(ConfigError, match="pictures become 28 x 27 pixels and the model needs multiples of 7 pixels"):
        load_processor(str(folder), config)


def test_an_image_token_that_the_tokenizer_takes_apart_is_refused(
    tmp_path: Path, write: Write, tiny_tokenizer: PreTrainedTokenizerFast
):
    folder, config = write()
    tiny_tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"'<image>' becomes tokens \[.*\], not \["):
        load_processor(str(folder), config)


def test_tiles_other_than_the_models_are_refused(tiles: tuple[Path, LlavaNextConfig]):
    folder, config = tiles
    config.image_grid_pinpoints = [[28, 56]]
    with pytest.raises(ConfigError, match=r"tiles is \[\[28, 56\], \[56, 28\], .* the model needs \[\[28, 56\]\]"):
        load_processor(str(folder), config)
    with pytest.raises(ConfigError, match="cuts pictures into tiles: leave the padding at own, not square"):
        load_processor(str(folder), config, pad="square")


def test_models_that_are_not_tested_are_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"type 'internvl' .*needs torchvision\); allowed: gemma3, idefics3, llava"):
        load_processor(str(tmp_path), InternVLConfig())
    with pytest.raises(ConfigError, match=r"type 'paligemma' .*here \(it has no turns"):
        load_processor(str(tmp_path), PaliGemmaConfig())
    pixtral = LlavaConfig(vision_config=PixtralVisionConfig(), text_config=LlamaConfig(**TINY_LLAMA))
    with pytest.raises(ConfigError, match="the vision tower 'pixtral' of a 'llava' model is not tested here; allowed"):
        load_processor(str(tmp_path), pixtral)


def test_a_folder_without_processor_is_one_line(tmp_path: Path, write: Write):
    _, config = write()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as error:
        load_processor(str(tmp_path / "empty"), config)
    assert str(error.value).startswith(f"'{tmp_path / 'empty'}' has no processor that can be loaded: ")
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="unknown padding 'sqare'; did you mean 'square'"):
        load_processor(str(tmp_path), config, pad="sqare")


def test_a_description_survives_json_and_tells_pads_apart(write: Write):
    folder, config = write()
    cropped, padded = (describe_processor(load_processor(str(folder), config, pad=pad)) for pad in ("own", "square"))
    saved = json.loads(json.dumps(padded))
    check_same_processing(saved, padded)
    assert (cropped["padding"], padded["padding"]) == ("crop", "square")
    with pytest.raises(ConfigError, match=r"not be processed as in training: .*padding was 'square' and is 'crop'"):
        check_same_processing(saved, cropped)
    load_processor(str(folder), config, pad="square").save_pretrained(folder / "saved")
    again = describe_processor(load_processor(str(folder / "saved"), config))
    check_same_processing(saved, again)


def test_other_colours_are_told_apart(write: Write):
    folder, config = write()
    before = describe_processor(load_processor(str(folder), config))
    path = folder / "processor_config.json"
    edited(path, image_processor=json.loads(path.read_text())["image_processor"] | {"image_mean": [0.5, 0.5, 0.5]})
    after = describe_processor(load_processor(str(folder), config))
    with pytest.raises(ConfigError, match=r"mean was \[0.48145466, .* and is \[0.5, 0.5, 0.5\]; use the processor"):
        check_same_processing(before, after)
