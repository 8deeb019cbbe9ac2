"""Adapters of models that do not continue text, given to the commands."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    LlamaForCausalLM,
    LlamaModel,
    T5Config,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from typer.testing import Result

from moslora import MosloraConfig
from moslora.adapter.heads import AUTO_CLASSES

Moslora = Callable[..., Result]
Refused = Callable[..., str]
CLASSES: dict[str, Any] = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": LlamaModel,
    "CAUSAL_LM": LlamaForCausalLM,
}


def save_adapter(
    model: Any, folder: Path, *, task: str | None, config: Any = MosloraConfig, target: str = "q_proj"
) -> Any:
    settings: dict[str, Any] = {"r": 4, "target_modules": [target], "task_type": task, "init_lora_weights": False}
    torch.manual_seed(1)
    adapted = get_peft_model(model, config(**settings))
    adapted.save_pretrained(str(folder))
    return adapted.eval()


@pytest.fixture
def adapter_of(tmp_path: Path, model_folder: Path) -> Callable[..., tuple[Path, Any]]:
    """An adapter for a task on the tiny model, with three labels where the task has labels."""

    def made(task: str, **options: Any) -> tuple[Path, Any]:
        labels = {"num_labels": 3} if task in ("SEQ_CLS", "TOKEN_CLS") else {}
        base = model_folder
        if task == "QUESTION_ANS":  # Llama's class for it names its parts otherwise
            base = tmp_path / "base"
            CLASSES[task].from_config(AutoConfig.from_pretrained(model_folder)).save_pretrained(base)
            AutoTokenizer.from_pretrained(model_folder).save_pretrained(base)
        model = CLASSES[task].from_pretrained(base, **labels)
        return tmp_path / task, save_adapter(model, tmp_path / task, task=task, **options)

    return made


def run_printed(line: str, then: str) -> str:
    """What a printed line of Python gives in a shell, with more code after it."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-c"]
    code = f"{words[2]}; {then}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_task_types_are_those_with_a_class_here():
    assert sorted(CLASSES) == sorted(AUTO_CLASSES)


@pytest.mark.filterwarnings("ignore:.*newly initialized")
@pytest.mark.parametrize("task", [task for task in CLASSES if task != "CAUSAL_LM"])
@pytest.mark.parametrize("command", ["fold", "merge"])
def test_an_adapter_for_another_task_is_exported_with_its_head(
    task: str, command: str, adapter_of: Callable[..., tuple[Path, Any]], moslora: Moslora
):
    folder, model = adapter_of(task)
    result = moslora(command, folder)
    assert "verified: " in result.stdout
    assert "likeliest token" not in result.stdout
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        expected = model(ids)[0].flatten()[:6].tolist()
    then = "import torch; print(model.eval()(torch.arange(3, 12)[None])[0].flatten()[:6].tolist())"
    found = json.loads(run_printed(result.stdout.splitlines()[-1], then))
    assert found == pytest.approx(expected, rel=0.05, abs=5e-3)  # the command computes in bfloat16 where that is native


@pytest.mark.filterwarnings("ignore:.*newly initialized")
def test_a_classifier_is_inspected_and_its_plain_lora_merged(
    adapter_of: Callable[..., tuple[Path, Any]], moslora: Moslora
):
    folder, _ = adapter_of("SEQ_CLS", config=LoraConfig)
    assert "q_proj" in moslora("inspect", folder).stdout
    assert "verified: " in moslora("merge", folder).stdout


@pytest.mark.filterwarnings("ignore:.*newly initialized")
def test_commands_that_need_text_name_the_task(adapter_of: Callable[..., tuple[Path, Any]], refused: Refused):
    folder, _ = adapter_of("SEQ_CLS")
    reason = (
        f"needs a language model, and {folder} is an adapter for AutoModelForSequenceClassification (task_type SEQ_CLS)"
        ": use it in Python, or fold or merge it"
    )
    assert refused("evaluate", folder, "--task", "everyday") == f"evaluate {reason}"
    assert refused("generate", folder, "Hello") == f"generate {reason}"


@pytest.mark.filterwarnings("ignore:.*newly initialized")
def test_a_head_that_was_not_saved_is_missed(tmp_path: Path, model_folder: Path, refused: Refused):
    model = AutoModelForSequenceClassification.from_pretrained(model_folder)
    save_adapter(model, tmp_path / "headless", task=None)  # PEFT saves the head of a task it knows
    message = refused("merge", tmp_path / "headless")
    assert message.startswith(f"model.path '{model_folder}' lacks 1 of its weights (score.weight): ")
    assert "or that the adapter was saved with what it trained" in message


@pytest.mark.parametrize("command", ["fold", "merge", "inspect", "evaluate"])
def test_other_models_are_refused_by_name(command: str, tmp_path: Path, refused: Refused):
    small = {"vocab_size": 99, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 1, "num_heads": 4}
    model = AutoModelForSeq2SeqLM.from_config(T5Config(**small, decoder_start_token_id=0))
    save_adapter(model, tmp_path / "s2s", task="SEQ_2_SEQ_LM", target="q")
    message = refused(command, tmp_path / "s2s", "--base", tmp_path)
    assert message.startswith(
        f"{tmp_path / 's2s'} is an adapter for a model that the commands do not load (task_type SEQ_2"
    )
    assert message.endswith("load it in Python, and use moslora.save_folded or save_merged there")


def test_a_model_that_hears_is_refused_by_its_class(tmp_path: Path, refused: Refused):
    layers = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8, "vocab_size": 99}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    save_adapter(WhisperForConditionalGeneration(WhisperConfig(**layers, **sizes, **tokens)), tmp_path / "w", task=None)
    assert "(a WhisperForConditionalGeneration; allowed: " in refused("fold", tmp_path / "w", "--base", tmp_path)


def test_an_adapter_without_a_task_takes_its_base_models_class(tmp_path: Path, model_folder: Path, moslora: Moslora):
    model = LlamaForCausalLM.from_pretrained(model_folder)
    save_adapter(model, tmp_path / "untold", task=None)
    line = moslora("fold", tmp_path / "untold").stdout.splitlines()[-1]
    assert "import LlamaForCausalLM" in line
    assert PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(model_folder), str(tmp_path / "untold" / "folded")
    )
