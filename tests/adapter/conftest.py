"""A saved tiny base model, and what the adapter tests do to it again and again."""

import copy

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaForCausalLM

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
