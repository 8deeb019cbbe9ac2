"""What a machine or a model cannot do is an error of one line before any weight is loaded."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, RwkvConfig

from moslora.data.everyday import everyday
from moslora.data.tasks import task
from moslora.errors import ConfigError, DataError
from moslora.evaluation.choice import score_by_generation, score_by_log_probability
from moslora.runs import abilities
from moslora.runs.models import load_model
from moslora.runs.recipe import ModelSettings


@pytest.fixture
def refused(train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The error of a run that is refused before anything is loaded or written."""

    def run(**changes: Any) -> str:
        with monkeypatch.context() as patch:
            patch.setattr("moslora.runs.run.load_model", lambda _: pytest.fail("weights were loaded"))
            with pytest.raises((ConfigError, DataError)) as caught:
                train(**changes)
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return run


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "meta", "cpu:1"])
def test_a_device_that_is_not_there_is_refused(refused: Callable[..., str], no_accelerator: None, name: str):
    assert refused(model={"device_map": name}) == (
        f"model.device_map {name}: this machine has no such device (it has: cpu); choose one of these, or leave it out"
    )


def test_a_word_that_is_no_device_is_refused(refused: Callable[..., str], no_accelerator: None):
    assert refused(model={"device_map": "disk"}) == (
        "model.device_map 'disk' is no device (allowed: auto, balanced, balanced_low_0, sequential, cpu)"
    )


def test_devices_that_are_there_are_taken(one_gpu: None):
    for name in ("cuda", "cuda:0", "cpu", "cpu:0", "auto", "sequential", None):
        abilities.check_abilities(ModelSettings(path="x", device_map=name), torch.float32)
    with pytest.raises(ConfigError, match=r"cuda:1: this machine has no such device \(it has: cpu, cuda:0\)"):
        abilities.check_abilities(ModelSettings(path="x", device_map="cuda:1"), torch.float32)


@pytest.mark.parametrize(
    ("attention", "dtype", "reason"),
    [
        ("flash_attention_2", "bfloat16", "FlashAttention2 has been toggled on, but it cannot be used"),
        ("foo", "float32", 'Specified `attn_implementation="foo"` is not supported'),
    ],
)
def test_attention_that_is_not_installed_is_refused(refused: Any, attention: str, dtype: str, reason: str):
    found = refused(model={"attn_implementation": attention, "dtype": dtype})
    assert found.startswith(f"model.attn_implementation '{attention}' does not work here: {reason}")
    assert found.endswith("(choose sdpa or eager, or leave it out)")


def test_attention_that_a_model_has_not_is_refused(refused: Callable[..., str], model_folder: Path, tmp_path: Path):
    shutil.copytree(model_folder, tmp_path / "rwkv")
    RwkvConfig(vocab_size=320, hidden_size=32, num_hidden_layers=1).save_pretrained(tmp_path / "rwkv")
    found = refused(model={"path": str(tmp_path / "rwkv"), "attn_implementation": "sdpa"})
    assert found.startswith("model.attn_implementation 'sdpa' does not work here: RwkvForCausalLM does not support")


def test_attention_that_has_no_such_dtype_or_no_gradient_is_refused(refused: Callable[..., str], no_accelerator: None):
    assert refused(model={"attn_implementation": "flash_attention_2", "dtype": "float32"}) == (
        "model.attn_implementation flash_attention_2 does not compute in float32: set model.dtype to bfloat16, or"
        " choose sdpa or eager"
    )
    assert refused(model={"attn_implementation": "flex_attention"}) == (
        "model.attn_implementation flex_attention cannot be trained on a CPU: choose sdpa or eager"
    )


def test_loading_alone_refuses_them_too(model_folder: Path, no_accelerator: None):
    with pytest.raises(ConfigError, match="this machine has no such device"):
        load_model(ModelSettings(path=str(model_folder), device_map="cuda"))


@pytest.fixture
def small(tmp_path: Path, model_folder: Path) -> Path:
    """The tiny model with fewer embeddings than its tokenizer has tokens."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.add_tokens(["[NEW]"])
    assert tokenizer.convert_tokens_to_ids("[NEW]") == 259
    config = LlamaConfig.from_pretrained(model_folder, vocab_size=259)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


BEYOND = "with the id 259, and the model has 259 embeddings (from 0)"


def test_a_token_of_a_sample_beyond_the_embeddings_is_refused(refused: Callable[..., str], small: Path, tmp_path: Path):
    data = tmp_path / "new.jsonl"
    data.write_text('{"instruction": "Say it.", "output": "a"}\n{"instruction": "Say [NEW].", "output": "a"}\n')
    assert refused(model={"path": str(small)}, data={"train": str(data)}) == (
        f"{data}: sample 2 has the token '[NEW]' {BEYOND}: take it out of the text, or use the tokenizer that belongs"
        " to the model (to leave such samples out: --set data.on_bad=skip)"
    )


def test_a_padding_token_beyond_the_embeddings_is_refused(refused: Callable[..., str], small: Path):
    tokenizer = AutoTokenizer.from_pretrained(small, pad_token="[NEW]")
    tokenizer.save_pretrained(small)
    assert refused(model={"path": str(small)}) == (
        f"the padding token '[NEW]' {BEYOND}: set the tokenizer's pad_token to one that the model has, such as its end"
        " token, or use the tokenizer that belongs to the model"
    )


def test_a_token_of_a_question_beyond_the_embeddings_is_refused(
    refused: Callable[..., str], small: Path, monkeypatch: pytest.MonkeyPatch
):
    questions = [*everyday("test")][:3]
    questions[1] = questions[1] | {"instruction": "[NEW] " + questions[1]["instruction"]}
    monkeypatch.setattr("moslora.runs.kinds.language_tasks.task_samples", lambda *_, **__: questions)
    expected = f"question 2 has the token '[NEW]' {BEYOND}: take it out"
    assert refused(model={"path": str(small)}).startswith(f"everyday: {expected}")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(small), AutoTokenizer.from_pretrained(small)
    for score in (score_by_log_probability, score_by_generation):
        with pytest.raises(DataError, match=re.escape(expected)):
            score(model, tokenizer, questions, task=task("everyday"), prompt_style="plain", progress=False)


def test_embeddings_to_train_that_are_not_there_are_refused(refused: Callable[..., str]):
    assert refused(adapter={"trainable_token_indices": [5, 320]}) == (
        "adapter.trainable_token_indices names the token 320, and the model has 320 embeddings (from 0): give ids that"
        " it has"
    )
