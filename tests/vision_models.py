"""Tiny models of the types that read pictures otherwise than LLaVA, with random weights and processors of their own."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3Processor,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3Processor,
    LlamaConfig,
    Mistral3Config,
    MistralConfig,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    Qwen3VLConfig,
    SiglipVisionConfig,
    SmolVLMConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from moslora.runs.picture_readers.mistral import PixtralPictures
from moslora.runs.picture_readers.qwen import Qwen2VlProcessor, Qwen3VlProcessor, Qwen25VlProcessor
from tests.pictures import vision_settings

NAMES = ("gemma3", "idefics3", "smolvlm", "mistral3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl")
MakeVision = Callable[..., tuple[Any, Any]]
WIDTHS: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
TOWER: dict[str, Any] = {**WIDTHS, "image_size": 28, "patch_size": 7, "num_hidden_layers": 2}
TEXT: dict[str, Any] = {**WIDTHS, "vocab_size": 320, "num_hidden_layers": 2, "num_key_value_heads": 2}
IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

# As their makers' templates: a content may come in parts, whose texts are trimmed; the assistant is called the model.
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}"
    "{% if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>model\n' }}{% endif %}"
)
# A content must come in parts, and what stands before it depends on the first of them.
IDEFICS_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] | capitalize }}"
    "{% if m['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}"
    "{% endfor %}{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# A content in parts, with a picture between tokens of the template's.
QWEN_TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' }}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for part in m['content'] %}{% if part['type'] == 'image' %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
# An answer without a header.
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{{ (m['content'] if m['content'] is string else m['content'][0]['text']) + eos_token }}{% else %}{{ '[INST]' }}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}{{ '[IMG]' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '[/INST]' }}{% endif %}{% endfor %}"
)


def gemma3(tokenizer: PreTrainedTokenizerFast, **images: Any) -> tuple[Any, Any]:
    """A configuration and its processor: 4 tokens a picture, sliding attention in one of two layers."""
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    known = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        extra_special_tokens=names,
        chat_template=GEMMA_TEMPLATE,
    )
    boi, eoi, image = (known.convert_tokens_to_ids(name) for name in names.values())
    text = Gemma3TextConfig(
        **TEXT, **IDS, head_dim=8, sliding_window=16, layer_types=["sliding_attention", "full_attention"]
    )
    tower = SiglipVisionConfig(**TOWER, vision_use_head=False)
    config = Gemma3Config(
        text_config=text,
        vision_config=tower,
        mm_tokens_per_image=4,
        boi_token_index=boi,
        eoi_token_index=eoi,
        image_token_index=image,
        **IDS,
    )
    processor = Gemma3ImageProcessorPil(size={"height": 28, "width": 28}, **images)
    return config, Gemma3Processor(processor, known, image_seq_length=4)


def idefics3(tokenizer: PreTrainedTokenizerFast, **images: Any) -> tuple[Any, Any]:
    """A configuration and its processor: 4 tokens a tile, and up to 2 x 2 tiles and the whole."""
    return _tiled(tokenizer, Idefics3Config, Idefics3VisionConfig, Idefics3ImageProcessorPil, images)


def smolvlm(tokenizer: PreTrainedTokenizerFast, **images: Any) -> tuple[Any, Any]:
    """As `idefics3`."""
    return _tiled(tokenizer, SmolVLMConfig, SmolVLMVisionConfig, SmolVLMImageProcessorPil, images)


def _tiled(tokenizer: PreTrainedTokenizerFast, whole: Any, vision: Any, processing: Any, images: Any) -> Any:
    known = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        chat_template=IDEFICS_TEMPLATE,
    )
    known.add_tokens(["<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2))], special_tokens=True)
    sizes = {"size": {"longest_edge": 56}, "max_image_size": {"longest_edge": 28}} | images
    processor = Idefics3Processor(processing(**sizes), known, image_seq_len=4)
    config = whole(
        vision_config=vision(**TOWER),
        text_config=LlamaConfig(**TEXT, **IDS),
        scale_factor=2,
        image_token_id=processor.image_token_id,
    )
    return config, processor


def mistral3(tokenizer: PreTrainedTokenizerFast, **images: Any) -> tuple[Any, Any]:
    """A configuration and its processor: a token for 2 x 2 patches of 7 pixels, at most 4 x 4 of them."""
    known = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        chat_template=MISTRAL_TEMPLATE,
    )
    known.add_tokens(["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"], special_tokens=True)
    processing = PixtralImageProcessorPil(**{"size": {"longest_edge": 56}, "patch_size": 7} | images)
    processor = PixtralPictures(processing, known, patch_size=7, spatial_merge_size=2)
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**{**TOWER, "image_size": 56}, head_dim=8),
        text_config=MistralConfig(**TEXT, **IDS, head_dim=8),
        image_token_index=processor.image_token_id,
        spatial_merge_size=2,
    )
    return config, processor


def qwen(name: str, tokenizer: PreTrainedTokenizerFast, **images: Any) -> tuple[Any, Any]:
    """A configuration and its processor: pictures of 4 to 16 squares of 2 x 2 patches, a token a square."""
    known = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|start|>",
        eos_token="<|end|>",
        chat_template=QWEN_TEMPLATE,
    )
    known.add_tokens(["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"], special_tokens=True)
    whole, processor_class = QWENS[name]
    numbers = {"patch_size": 7, "merge_size": 2, "size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}} | images
    processor = processor_class(Qwen2VLImageProcessorPil(**numbers), known)
    widths = {"embed_dim": 32, "hidden_size": 32} if name == "qwen2_vl" else {"hidden_size": 32, "out_hidden_size": 32}
    own = {
        "qwen2_vl": {"mlp_ratio": 2},
        "qwen2_5_vl": {"intermediate_size": 48, "window_size": 28, "fullatt_block_indexes": [1]},
        "qwen3_vl": {"intermediate_size": 48, "deepstack_visual_indexes": [0], "num_position_embeddings": 16},
    }
    tower = {"depth": 2, "num_heads": 4, "patch_size": 7, **widths, **own[name]}
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = whole(
        vision_config=tower,
        text_config={**TEXT, **IDS, "head_dim": 8, "rope_parameters": rope, "max_position_embeddings": 512},
        image_token_id=processor.image_token_id,
        video_token_id=processor.image_token_id + 2,
        vision_start_token_id=processor.image_token_id - 1,
        vision_end_token_id=processor.image_token_id + 1,
    )
    return config, processor


QWENS: dict[str, tuple[Any, Any]] = {
    "qwen2_vl": (Qwen2VLConfig, Qwen2VlProcessor),
    "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen25VlProcessor),
    "qwen3_vl": (Qwen3VLConfig, Qwen3VlProcessor),
}
MAKERS: dict[str, MakeVision] = {"gemma3": gemma3, "idefics3": idefics3, "smolvlm": smolvlm, "mistral3": mistral3}
MAKERS |= {name: partial(qwen, name) for name in QWENS}


@pytest.fixture(scope="session")
def make_vision(tiny_tokenizer: PreTrainedTokenizerFast) -> MakeVision:
    """The configuration of a tiny model of a type, and its processor; options are the image processor's."""

    def make(name: str, **images: Any) -> tuple[Any, Any]:
        return MAKERS[name](copy.deepcopy(tiny_tokenizer), **images)

    return make


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory, make_vision: MakeVision) -> Callable[[str], Path]:
    """The folder of a tiny model of a type with its processor."""
    folder = tmp_path_factory.mktemp("vision")

    def make(name: str) -> Path:
        if not (folder / name).exists():
            config, processor = make_vision(name)
            torch.manual_seed(0)
            model = AutoModelForImageTextToText.from_config(config)
            for parameter in model.parameters():  # Gemma's projector starts at zero, which lets no picture through
                if not parameter.any():
                    torch.nn.init.normal_(parameter, std=0.1)
            model.save_pretrained(folder / name)
            processor.save_pretrained(folder / name)
        return folder / name

    return make


@pytest.fixture
def write_vision_of(tmp_path: Path, vision_folder: Callable[[str], Path], picture_data: Path) -> Callable[..., Path]:
    """Write the recipe of seconds for a model of a type; arguments change groups of settings."""

    def write(name: str, **changes: Any) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(json.dumps(vision_settings(vision_folder(name), picture_data, **changes)))
        return path

    return write
