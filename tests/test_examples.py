"""The scripts under examples/, run as a user runs them, on a tiny random model."""

import runpy
import sys
from pathlib import Path

import pytest
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

from moslora import MosloraConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
STEPS = 3

# What Trainer and TRL say on a machine without an accelerator, and of each other's older names.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning"),
    pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning"),
]


@pytest.fixture
def run(tiny_llama, tiny_tokenizer, tmp_path, monkeypatch, capsys):
    """Run an example on the saved tiny model; returns its output folder and what it printed."""
    tiny_llama.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    output = tmp_path / "out"

    def run_example(name: str) -> tuple[Path, str]:
        options = ["--model", str(tmp_path / "model"), "--output", str(output), "--steps", str(STEPS)]
        monkeypatch.setattr(sys, "argv", [name, *options])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return output, capsys.readouterr().out

    return run_example


def test_the_trainer_example_leaves_an_adapter_and_plain_lora(run, tiny_llama):
    output, printed = run("trainer.py")
    assert "plain LoRA in" in printed
    adapter = AutoPeftModelForCausalLM.from_pretrained(output / "adapter")
    assert isinstance(adapter.peft_config["default"], MosloraConfig)
    folded = PeftModel.from_pretrained(tiny_llama, output / "folded")
    assert folded.peft_config["default"].peft_type.value == "LORA"


def test_the_trl_example_leaves_an_adapter_and_plain_lora(run, tiny_llama):
    pytest.importorskip("trl")
    output, printed = run("sft_trl.py")
    assert "plain LoRA in" in printed
    adapter = AutoPeftModelForCausalLM.from_pretrained(output / "adapter")
    assert isinstance(adapter.peft_config["default"], MosloraConfig)
    folded = PeftModel.from_pretrained(tiny_llama, output / "folded")
    assert folded.peft_config["default"].peft_type.value == "LORA"


def test_the_plain_loop_example_leaves_a_full_model(run):
    output, printed = run("plain_loop.py")
    assert printed.startswith("step 0  loss ")
    assert "mixer condition" in printed
    merged = AutoModelForCausalLM.from_pretrained(output / "merged")
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_examples_stay_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 60, path.name
