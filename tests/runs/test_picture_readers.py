"""How models other than LLaVA take pictures: told from the header alone, against what their processors do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from moslora.data.images import ImageHeader
from moslora.errors import ConfigError, DataError
from moslora.runs.kinds.vision_material import question_ids
from moslora.runs.processors import (
    check_same_processing,
    describe_processor,
    image_tokens,
    load_processor,
    picture_text,
    placeholder,
)
from moslora.training.vision_language import pixels, token_types
from tests.vision_models import NAMES, QWENS, MakeVision

SIZES = [(28, 28), (60, 20), (20, 60), (1, 1), (3, 1), (13, 7), (7, 130), (333, 250), (56, 57), (500, 29), (29, 28)]
LENGTHS = dict.fromkeys(NAMES, 6) | {"gemma3": 1, "idefics3": 3, "smolvlm": 3, "mistral3": 8}  # among those sizes
TYPES = {"gemma3": "token_type_ids"} | dict.fromkeys(QWENS, "mm_token_type_ids")
OTHER = {"size": {"longest_edge": 84}}
OTHERS = {name: {"resample": 0} for name in NAMES} | {"idefics3": OTHER, "smolvlm": OTHER}
PARTS = {"type": "image"}, {"type": "text", "text": "What colour?"}
Write = Callable[..., tuple[Path, Any]]


@pytest.fixture
def write(tmp_path: Path, make_vision: MakeVision) -> Write:
    """A processor's folder, and the configuration of its model."""

    def make(name: str, **images: Any) -> tuple[Path, Any]:
        config, processor = make_vision(name, **images)
        processor.save_pretrained(tmp_path)
        return tmp_path, config

    return make


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def check_counts(processor: Any, sizes: list[tuple[int, int]]) -> set[int]:
    """Compare the ids of texts with pictures with the processor's own; returns the lengths."""
    tokenizer, lengths = processor.tokenizer, set()
    for width, height in sizes:
        text = f"What is {processor.image_token} there?"
        own = processor(text=[text], images=[[picture(width, height)]], add_special_tokens=False)["input_ids"][0]
        told = text.replace(processor.image_token, picture_text(processor, width=width, height=height))
        assert tokenizer.encode(told, add_special_tokens=False) == own, (width, height)
        assert own.count(placeholder(processor)[1]) == image_tokens(processor, width=width, height=height)
        lengths.add(len(own))
    return lengths


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_picture_is_told_as_the_processor_makes_it(write: Write, name: str):
    folder, config = write(name)
    lengths = check_counts(load_processor(str(folder), config), SIZES)
    assert len(lengths) == LENGTHS[name]


@pytest.mark.parametrize("images", [{"size": {"longest_edge": 70}}, {"size": {"longest_edge": 100}}])
def test_tiles_are_counted_where_the_longest_edge_is_not_whole_tiles(write: Write, images: dict[str, Any]):
    folder, config = write("idefics3", **images)
    processor = load_processor(str(folder), config)
    sizes = [(width, height) for width in (56, 60, 84, 99) for height in (14, 28, 29, 56, 57, 90)]
    assert len(check_counts(processor, sizes)) > 3
    wrong = []
    for width, height in sizes:
        transformers_own = processor._get_num_multimodal_tokens(image_sizes=[[height, width]])["num_image_tokens"][0]
        told = processor.tokenizer.encode(picture_text(processor, width=width, height=height), add_special_tokens=False)
        wrong += [(width, height)] * (len(told) != transformers_own)
    assert wrong  # else its own count could be taken


@pytest.mark.parametrize(
    "images", [{"do_image_splitting": False}, {"do_resize": False}, {"size": {"height": 40, "width": 90}}]
)
def test_pictures_that_are_not_cut_or_not_resized_first_are_told_too(write: Write, images: dict[str, Any]):
    folder, config = write("smolvlm", **images)
    check_counts(load_processor(str(folder), config), [(28, 28), (60, 20), (20, 60), (13, 7), (56, 57)])


def test_crops_that_the_processor_would_not_make_are_refused(write: Write):
    folder, config = write("gemma3", do_pan_and_scan=True, pan_and_scan_min_crop_size=20)
    assert len(check_counts(AutoProcessor.from_pretrained(folder), SIZES)) == 1  # its calls say otherwise
    with pytest.raises(ConfigError, match="do_pan_and_scan is set, which Gemma3Processor passes over unless each call"):
        load_processor(str(folder), config)


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_put_as_the_models_own_template_and_processor_put_it(write: Write, name: str):
    folder, config = write(name)
    processor = load_processor(str(folder), config)
    first, second = picture(60, 20), picture(13, 7)
    asked = [{"role": "user", "content": [PARTS[0], *PARTS]}]
    text = processor.apply_chat_template(asked, add_generation_prompt=True)
    own = processor(text=[text], images=[[first, second]], add_special_tokens=False)["input_ids"][0]
    headers = [ImageHeader(one.width, one.height) for one in (first, second)]
    assert question_ids("<image>\n<image>\nWhat colour?", processor, headers=headers) == own
    words = processor.apply_chat_template([{"role": "user", "content": [PARTS[1]]}], add_generation_prompt=True)
    assert question_ids("What colour?", processor, headers=[]) == processor.tokenizer.encode(
        words, add_special_tokens=False
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_model_finds_a_feature_for_each_place(write: Write, name: str):
    folder, config = write(name)
    processor = load_processor(str(folder), config)
    model = AutoModelForImageTextToText.from_config(config).eval()
    shown = [picture(width, height) for width, height in SIZES]
    headers = [ImageHeader(one.width, one.height) for one in shown]
    ids = torch.tensor([question_ids("<image>\n" * len(shown), processor, headers=headers)])
    number = placeholder(processor)[1]
    given = token_types(ids, model, image_token_id=number) | pixels(shown, processor)
    with torch.no_grad():
        assert model(input_ids=ids, **given).logits.isfinite().all()  # raises where they differ in number
    own = processor(
        text=[f"{processor.image_token} " * len(shown)], images=[shown], add_special_tokens=False, return_tensors="pt"
    )
    ours = token_types(own["input_ids"], model, image_token_id=number)
    assert [*ours] == ([TYPES[name]] if name in TYPES else [])
    assert all(torch.equal(value, own[key]) for key, value in (given | ours).items())


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma3", {"mm_tokens_per_image": 16}, "image_seq_length is 4 and the model needs 16"),
        ("gemma3", {"image_token_index": 7}, "image_token_id is 261 and the model needs 7"),
        ("gemma3", {"boi_token_index": 7}, "boi_token_id is 259 and the model needs 7"),
        ("gemma3", {"eoi_token_index": 7}, "eoi_token_id is 260 and the model needs 7"),
        ("gemma3", {"image_size": 35}, "pictures become 28 x 28 pixels and the model needs 35 x 35 pixels"),
        ("idefics3", {"scale_factor": 4}, "image_seq_len is 4 and the model needs 1"),
        ("idefics3", {"image_token_id": 7}, "image_token_id is 265 and the model needs 7"),
        ("smolvlm", {"image_size": 29}, "max_image_size is 28 and the model needs 29"),
        ("mistral3", {"patch_size": 14}, "patch_size is 7 and the model needs 14"),
        ("mistral3", {"spatial_merge_size": 1}, "spatial_merge_size is 2 and the model needs 1"),
        ("mistral3", {"image_token_index": 7}, "image_token_id is 259 and the model needs 7"),
        ("mistral3", {"image_size": 28}, "pictures become up to 56 pixels long and the model takes 28"),
        ("qwen2_vl", {"patch_size": 14}, "patch_size is 7 and the model needs 14"),
        ("qwen2_5_vl", {"spatial_merge_size": 1}, "merge_size is 2 and the model needs 1"),
        ("qwen3_vl", {"temporal_patch_size": 1}, "temporal_patch_size is 2 and the model needs 1"),
        ("qwen3_vl", {"image_token_id": 7}, "image_token_id is 260 and the model needs 7"),
    ],
)
def test_a_processor_that_disagrees_with_the_model_is_refused_with_both_values(
    write: Write, name: str, changes: dict[str, Any], message: str
):
    folder, config = write(name)
    for key, value in changes.items():
        setattr(config if hasattr(config, key) else config.vision_config, key, value)
    with pytest.raises(ConfigError) as error:
        load_processor(str(folder), config)
    assert f"the processor of '{folder}' does not fit the model: {message} (mend" in str(error.value)


@pytest.mark.parametrize(("name", "option"), [("smolvlm", "do_normalize"), ("qwen2_5_vl", "do_resize")])
def test_a_step_that_a_model_cannot_do_without_is_needed(write: Write, name: str, option: str):
    folder, config = write(name, **{option: False})
    with pytest.raises(ConfigError, match=f"{option} is False and the model needs True"):
        load_processor(str(folder), config)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gemma3", "stretches pictures to a square"),
        ("idefics3", "cuts pictures into tiles"),
        ("mistral3", "keeps the shape of pictures"),
        ("qwen2_5_vl", "keeps the shape of pictures"),
    ],
)
def test_another_padding_than_the_models_own_is_refused(write: Write, name: str, reason: str):
    folder, config = write(name)
    with pytest.raises(ConfigError, match=f"'{name}' {reason}: leave the padding at own, not square"):
        load_processor(str(folder), config, pad="square")


def test_a_tokenizer_without_the_models_tokens_is_one_line(write: Write, tiny_tokenizer: Any):
    folder, config = write("gemma3")
    tiny_tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"has no processor that can be loaded: .*boi_token"):
        load_processor(str(folder), config)


@pytest.mark.parametrize("name", NAMES)
def test_a_description_survives_json_and_tells_processors_apart(write: Write, name: str):
    folder, config = write(name)
    saved = json.loads(json.dumps(describe_processor(load_processor(str(folder), config))))
    check_same_processing(saved, describe_processor(load_processor(str(folder), config)))
    images = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    edit(folder, image_processor=images | OTHERS[name])
    with pytest.raises(
        ConfigError, match=r"not be processed as in training: (resample|size) was .* and is .*; use the"
    ):
        check_same_processing(saved, describe_processor(load_processor(str(folder), config)))


def test_smolvlms_own_files_are_read_without_what_videos_need(write: Write):
    folder, config = write("smolvlm")
    expected = describe_processor(load_processor(str(folder), config))
    videos = {"video_processor_type": "SmolVLMVideoProcessor", "size": {"longest_edge": 28}}
    edit(folder, processor_class="SmolVLMProcessor", video_processor=videos)
    processor = load_processor(str(folder), config)
    assert describe_processor(processor) == expected
    processor.save_pretrained(folder / "saved")
    again = AutoProcessor.from_pretrained(folder / "saved")
    text, shown = ["What is <image> there?"], [[picture(60, 20)]]
    assert again(text=text, images=shown)["input_ids"] == processor(text=text, images=shown)["input_ids"]


@pytest.mark.parametrize("name", QWENS)
def test_a_qwen_processor_is_saved_as_its_makers_own(write: Write, name: str):
    folder, config = write(name)
    saved = json.loads((folder / "processor_config.json").read_text())
    names = {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen3_vl": "Qwen3VLProcessor"}
    assert saved["processor_class"] == names[name]
    videos = {"Qwen3VLVideoProcessor"} if name == "qwen3_vl" else {"Qwen2VLVideoProcessor"}
    assert {*saved["video_processor"].values()} == videos
    assert {*saved} == {"image_processor", "processor_class", "video_processor"}
    edit(folder, video_processor=saved["video_processor"] | {"fps": 3})
    load_processor(str(folder), config).save_pretrained(folder / "again")
    again = json.loads((folder / "again" / "processor_config.json").read_text())
    assert again["video_processor"] == saved["video_processor"] | {"fps": 3}


@pytest.mark.parametrize(
    ("name", "reason"), [("qwen2_5_vl", ": .*200.*; crop it"), ("mistral3", " is too long and thin to be .*; crop it")]
)
def test_a_picture_that_is_too_long_is_refused_by_its_size(write: Write, name: str, reason: str):
    folder, config = write(name)
    processor = load_processor(str(folder), config)
    with pytest.raises(DataError, match=f"^question: a picture of 402 x 2 pixels{reason}$"):
        question_ids("<image>", processor, headers=[ImageHeader(402, 2)])


def test_a_mistral_processor_is_saved_as_its_makers_own(write: Write):
    folder, config = write("mistral3")
    first = json.loads((folder / "processor_config.json").read_text())
    assert first["processor_class"] == "PixtralProcessor"
    processor = load_processor(str(folder), config)
    assert processor.image_processor.patch_size == {"height": 14, "width": 14}
    shown = picture_text(processor, width=28, height=42)
    assert shown == "[IMG][IMG][IMG_BREAK][IMG][IMG][IMG_BREAK][IMG][IMG][IMG_END]"
    processor.save_pretrained(folder / "again")
    assert json.loads((folder / "again" / "processor_config.json").read_text()) == first  # 7, which its calls enlarge
    again = load_processor(str(folder / "again"), config)
    assert describe_processor(again) == describe_processor(processor)
