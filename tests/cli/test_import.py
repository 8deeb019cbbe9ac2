import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM
from typer.testing import Result

Moslora = Callable[..., Result]
Refused = Callable[..., str]


@pytest.fixture
def plain_lora(tmp_path: Path, tiny_llama: LlamaForCausalLM, model_folder: Path) -> Path:
    tiny_llama.config._name_or_path = tiny_llama.name_or_path = str(model_folder)
    model = get_peft_model(tiny_llama, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model.save_pretrained(str(tmp_path / "lora"))
    return tmp_path / "lora"


def test_plain_lora_becomes_a_start_that_every_command_takes(tmp_path: Path, plain_lora: Path, moslora: Moslora):
    result = moslora("import", plain_lora, "--output", tmp_path / "ours")
    assert result.stdout == f"imported: {tmp_path / 'ours'} (rank 4, identity mixers added to plain LoRA)\n"
    assert "from identity" in moslora("inspect", tmp_path / "ours").stdout
    moslora("fold", tmp_path / "ours")
    assert (tmp_path / "ours" / "folded" / "adapter_config.json").is_file()


def test_the_reference_implementations_pickle_is_read_as_tensors_only(
    tmp_path: Path, plain_lora: Path, moslora: Moslora
):
    tensors = load_file(plain_lora / "adapter_model.safetensors")
    layers = [key.removesuffix(".lora_A.weight") for key in tensors if key.endswith("lora_A.weight")]
    mixers = {f"{layer}.lora_AB.weight": torch.randn(4, 4) for layer in layers}
    (plain_lora / "adapter_model.safetensors").unlink()
    torch.save(tensors | mixers, plain_lora / "adapter_model.bin")
    result = moslora("import", plain_lora, "--output", tmp_path / "ours", "--json")
    assert json.loads(result.stdout) == {
        "folder": str(tmp_path / "ours"),
        "r": 4,
        "lora_alpha": 8,
        "mixer": "kaiming",
        "mixer_depth": 1,
        "lora_bias": False,
    }


def test_mistakes_are_one_line(tmp_path: Path, plain_lora: Path, refused: Refused):
    assert refused("import", tmp_path / "nowhere", "--output", tmp_path / "ours").startswith(
        f"{tmp_path / 'nowhere'} has no adapter weights"
    )
    assert "exists and is not an empty folder" in refused("import", plain_lora, "--output", plain_lora)
    (plain_lora / "adapter_model.safetensors").write_bytes(b"x" * 100)
    assert "is damaged" in refused("import", plain_lora, "--output", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_three_folders_of_a_llava_model_become_one_adapter_of_it(
    tmp_path: Path,
    plain_lora: Path,
    model_folder: Path,
    tower_folder: Callable[[str], Path],
    moslora: Moslora,
    refused: Refused,
):
    base, source = tmp_path / "llava", tmp_path / "xtuner"
    moslora("assemble", model_folder, tower_folder("clip"), base, "--dtype", "float32")
    source.mkdir()
    weights = plain_lora / "adapter_model.safetensors"
    save_file({name: torch.full_like(tensor, 0.1) for name, tensor in load_file(weights).items()}, weights)
    plain_lora.rename(source / "llm_adapter")
    assert "holds adapters of a LLaVA model's parts" in refused("import", source, "--output", tmp_path / "ours")
    result = moslora("import", source, "--base", base, "--output", tmp_path / "ours")
    head, part, verified = result.stdout.splitlines()
    assert head == f"imported: {tmp_path / 'ours'}"
    assert part == "  language: 4 layers, rank 4, alpha 8, mixer identity"
    assert verified.startswith(f"verified in {base}: 16 tensors as in the files; a picture's logits change by ")
    record = json.loads(moslora("import", source, "--base", base, "--output", tmp_path / "again", "--json").stdout)
    assert (record["has_projector"], record["compared_tensors"], list(record["parts"])) == (False, 16, ["language"])


def test_a_base_is_asked_for_parts_only(tmp_path: Path, plain_lora: Path, model_folder: Path, refused: Refused):
    message = refused("import", plain_lora, "--base", model_folder, "--output", tmp_path / "ours")
    assert message.startswith("--base is for folders with llm_adapter or visual_encoder_adapter")
