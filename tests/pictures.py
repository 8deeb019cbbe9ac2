"""A tiny LLaVA with random weights, conversations about pictures made here, and a recipe of seconds for both."""

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
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\\n' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
)
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210)}


@pytest.fixture(scope="session")
def llava_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny LLaVA of a CLIP tower and a Llama, and its processor, as a folder that a recipe can name."""
    folder = tmp_path_factory.mktemp("models") / "llava"
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=28, patch_size=7, num_hidden_layers=3, **sizes),
        text_config=LlamaConfig(vocab_size=320, num_hidden_layers=2, max_position_embeddings=512, **sizes),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    numbers = {"patch_size": 7, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    LlavaProcessor(images, tokenizer, **numbers).save_pretrained(folder)
    return folder


def make_pictures(folder: Path) -> Path:
    """Conversations about coloured pictures, one without a picture, and a folder of questions like easy-VQA's."""
    (folder / "easy-vqa" / "images").mkdir(parents=True)
    samples, questions = [], []
    for number in range(12):
        name, colour = list(COLOURS.items())[number % 3]
        pixels = np.full((20, 20 + number, 3), colour, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "easy-vqa" / "images" / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat colour?"}, {"from": "gpt", "value": name}]
        samples.append({"id": str(number), "image": f"easy-vqa/images/{number}.png", "conversations": turns})
        questions.append(["What colour?", name, number])
    turns = [{"from": "human", "value": "Say red."}, {"from": "gpt", "value": "red"}]
    samples.append({"id": "text", "conversations": turns})
    (folder / "train.json").write_text(json.dumps(samples))
    (folder / "easy-vqa" / "questions.json").write_text(json.dumps(questions))
    return folder


def vision_settings(model: Path, data: Path, /, **changes: Any) -> dict[str, Any]:
    """A recipe of seconds; arguments change groups of settings."""
    part = {"target_modules": "all-linear", "r": 4, "lora_alpha": 8}
    groups: dict[str, Any] = {
        "kind": "vision_language",
        "seed": 3,
        "model": {"path": str(model), "dtype": "float32"},
        "adapter": {"parts": {"language": part, "vision": {**part, "r": 2}}, "projector": "trained"},
        "data": {"train": str(data / "train.json")},
        "training": {
            "max_steps": 4,
            "batch_size": 4,
            "learning_rate": 0.01,
            "warmup_steps": 0,
            "save_every_steps": 2,
            "log_every_steps": 1,
        },
        "evaluation": {"tasks": ["easy-vqa"], "data": str(data), "limit": 6, "picture_blanked": True},
    }
    return {k: v | changes.get(k, {}) if isinstance(v, dict) else changes.get(k, v) for k, v in groups.items()}


@pytest.fixture
def picture_data(tmp_path: Path) -> Path:
    """The conversations, their pictures and the questions."""
    return make_pictures(tmp_path / "data")


@pytest.fixture
def write_vision(tmp_path: Path, llava_folder: Path, picture_data: Path) -> Callable[..., Path]:
    """Write the recipe of seconds; arguments change groups of settings."""

    def write(name: str = "pictures", **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(vision_settings(llava_folder, picture_data, **changes)))
        return path

    return write
