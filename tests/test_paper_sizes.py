"""The shipped recipe of the paper's main experiment, built with LLaMA-3-8B's real dimensions, without its weights."""

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from moslora import load_recipe
from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import method_config

LLAMA_3_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def make_model():
    def make():
        with torch.device("meta"):
            return LlamaForCausalLM(LLAMA_3_8B)

    return make


@pytest.mark.parametrize(
    ("overrides", "trainable", "mixer"),
    [
        ([], 28_352_512, 40_960),
        (["adapter.method=lora", "adapter.mixer=null"], 28_311_552, 0),
        (["adapter.method=ts-mixing", "adapter.mixer=null"], 28_311_552, 40_960),
        (["adapter.method=linchain"], 28_434_432, 122_880),
    ],
)
def test_the_trainable_parameters_are_the_papers(make_model, overrides, trainable, mixer):
    """Table 4: LoRA 28.3M, MoSLoRA 28.4M."""
    recipe = load_recipe("commonsense-llama3-8b", overrides)
    model = get_peft_model(
        make_model(), method_config(recipe.adapter.method, recipe.adapter.options), low_cpu_mem_usage=True
    )
    counts = count_parameters(model)
    assert (counts["trainable"], counts["mixer"]) == (trainable, mixer)


def test_the_recipe_has_the_papers_hyper_parameters():
    recipe = load_recipe("commonsense-llama3-8b")
    options = recipe.adapter.options
    assert (options["r"], options["lora_alpha"], options["lora_dropout"]) == (16, 32, 0.05)
    assert sorted(options["target_modules"]) == ["down_proj", "k_proj", "q_proj", "up_proj", "v_proj"]
    training = recipe.training
    assert (training.batch_size, training.epochs, training.learning_rate, training.warmup_steps) == (16, 3, 3e-4, 100)
    data = recipe.data
    assert (data.max_length_tokens, data.validation_samples, data.loss_on, data.prompt) == (
        256,
        120,
        "sequence",
        "alpaca",
    )
    assert training.keep_best
    assert len(recipe.evaluation.tasks) == 8
