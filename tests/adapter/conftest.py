"""A saved tiny base model, and what the adapter tests do to it again and again."""

import copy
import functools

import pytest
import torch
from peft import get_peft_model
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from moslora import MosloraConfig

TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture
def ids():
    return torch.randint(320, (4, 10), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def base_folder(tiny_llama, tmp_path):
    folder = tmp_path / "base"
    tiny_llama.save_pretrained(folder)
    return folder


@pytest.fixture
def make_base(tiny_llama):
    """Fresh copies of one and the same base model."""
    return lambda: copy.deepcopy(tiny_llama)


@pytest.fixture
def load_base(base_folder):
    return lambda **options: LlamaForCausalLM.from_pretrained(base_folder, **options).eval()


@pytest.fixture
def config():
    def make(**options):
        return MosloraConfig(
            **{"r": 8, "lora_alpha": 16, "target_modules": TARGETS, "task_type": "CAUSAL_LM"} | options
        )

    return make


@pytest.fixture
def logits(ids):
    def run(model, **options):
        with torch.no_grad():
            return model.eval()(input_ids=ids, **options).logits

    return run


@pytest.fixture
def train(ids):
    """A few steps of Adam on one batch, so that every factor moves."""

    def run(model, steps=4, rate=0.02):
        model.train()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(parameters, lr=rate)
        for _ in range(steps):
            model(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        return model.eval()

    return run


@pytest.fixture
def trained(make_base, config, train):
    """A trained MoSLoRA model; options go to the configuration."""

    def make(**options):
        torch.manual_seed(7)
        return train(get_peft_model(make_base(), config(**options)))

    return make


IMAGE_TOKEN = 63
VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 32, "patch_size": 8}
TOWERS = {
    "clip": CLIPVisionConfig(**VIT, intermediate_size=48),
    "siglip": SiglipVisionConfig(**VIT, intermediate_size=48),
    "dinov2": Dinov2Config(**VIT, mlp_ratio=2),
}
LLAVA_PARTS = {
    "language": "model.language_model",
    "vision": "model.vision_tower",
    "projector": "model.multi_modal_projector",
}


@pytest.fixture
def parts():
    return dict(LLAVA_PARTS)


@pytest.fixture
def make_llava():
    """A tiny LLaVA with random weights: 3 vision layers of width 32, 2 Llama layers of width 32."""

    def make(tower="clip", **options):
        text = LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        torch.manual_seed(0)
        vision = copy.deepcopy(TOWERS[tower])
        config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN, **options)
        return LlavaForConditionalGeneration(config).eval()

    return make


@pytest.fixture
def pictured():
    """Two texts, each with a picture of 16 tokens; of a SigLIP tower, 15: it has no class token to drop."""

    def make(tower="clip"):
        generator = torch.Generator().manual_seed(3)
        words = torch.randint(3, 60, (2, 8), generator=generator)
        image = torch.full((2, 15 if tower == "siglip" else 16), IMAGE_TOKEN)
        return {
            "input_ids": torch.cat([image, words], dim=1),
            "pixel_values": torch.randn(2, 3, 32, 32, generator=generator),
        }

    return make


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory):
    """A tiny text-to-image pipeline: `sdxl`, `sd15`, `sd3` or `flux`."""
    from tests import diffusion  # which takes seconds to import

    place = tmp_path_factory.mktemp("pipelines")
    return functools.cache(lambda kind: getattr(diffusion, f"tiny_{kind}")(place / kind))
