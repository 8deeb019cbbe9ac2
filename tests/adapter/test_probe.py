"""The probe that an export is compared on where none is given: for each kind of model that reads tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    T5Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from moslora import MosloraConfig, save_folded, save_merged
from moslora.adapter.verification import token_probe
from moslora.errors import ConfigError

SIZES = {"vocab_size": 99, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4}


def adapted(model: Any, target: str, task: str | None) -> nn.Module:
    torch.manual_seed(0)
    return get_peft_model(model, MosloraConfig(r=4, target_modules=[target], task_type=task, init_lora_weights=False))


def encoder_decoder() -> nn.Module:
    return adapted(AutoModelForSeq2SeqLM.from_config(T5Config(**SIZES, decoder_start_token_id=0)), "q", "SEQ_2_SEQ_LM")


def classifier(model_folder: Path, pad: int | None, kind: Any = AutoModelForSequenceClassification) -> nn.Module:
    model = kind.from_pretrained(model_folder, num_labels=3)
    model.config.pad_token_id = pad
    return adapted(model, "q_proj", "SEQ_CLS" if kind is AutoModelForSequenceClassification else "TOKEN_CLS")


@pytest.mark.filterwarnings("ignore:.*newly initialized")
@pytest.mark.parametrize("export", [save_folded, save_merged])
@pytest.mark.parametrize("kind", ["encoder-decoder", "classifier", "classifier without padding", "token classifier"])
def test_every_model_that_reads_tokens_has_a_probe(kind: str, export: Any, model_folder: Path, tmp_path: Path):
    model = {
        "encoder-decoder": encoder_decoder,
        "classifier": lambda: classifier(model_folder, 0),
        "classifier without padding": lambda: classifier(model_folder, None),
        "token classifier": lambda: classifier(model_folder, None, AutoModelForTokenClassification),
    }[kind]()
    drift = export(model, tmp_path / "out")
    assert drift.is_within
    assert drift.largest_output > 0


def test_a_model_that_reads_sounds_is_given_its_own_probe():
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8, "vocab_size": 99}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    config = WhisperConfig(**layers, **sizes, **tokens, max_source_positions=20, max_target_positions=30)
    model = adapted(WhisperForConditionalGeneration(config), "q_proj", None)
    with pytest.raises(ConfigError, match="WhisperForConditionalGeneration reads input_features: give the inputs to"):
        save_folded(model, "nowhere")


def test_only_a_classifier_without_a_padding_token_takes_one_row(model_folder: Path):
    ids = torch.arange(6).view(2, 3)
    language_model = AutoModelForCausalLM.from_pretrained(model_folder)
    language_model.config.pad_token_id = None
    assert torch.equal(token_probe(language_model, ids)["input_ids"], ids)
    language_model.config.num_labels = 3
    sorted_by = AutoModelForSequenceClassification.from_config(language_model.config)
    assert token_probe(sorted_by, ids)["input_ids"].tolist() == [[0, 1, 2]]
    sorted_by.config.pad_token_id = 0
    assert torch.equal(token_probe(sorted_by, ids)["input_ids"], ids)
