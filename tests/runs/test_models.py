import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moslora.errors import ConfigError, MissingDependencyError
from moslora.runs import models
from moslora.runs.groups import ModelSettings
from moslora.runs.model_names import is_hub_id
from moslora.runs.models import choose_dtype, load_model, load_tokenizer, meta_model, resolve_model


@pytest.fixture
def copied(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the tiny model that a test may damage."""
    shutil.copytree(model_folder, tmp_path / "copy")
    return tmp_path / "copy"


def message(load: Callable[[ModelSettings], object], path: str | Path, **options: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(ModelSettings(path=str(path), **options))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_model_is_loaded_in_its_dtype_and_in_evaluation_mode(model_folder: Path, dtype: str):
    model = load_model(ModelSettings(path=str(model_folder), dtype=dtype, attn_implementation="eager"))  # type: ignore[arg-type]
    assert model.dtype == getattr(torch, dtype)
    assert not model.training
    assert model.config._attn_implementation == "eager"


def test_the_automatic_dtype_is_bfloat16_where_it_is_native(monkeypatch: pytest.MonkeyPatch):
    if torch.accelerator.is_available():
        pytest.skip("about processors")
    monkeypatch.setattr(models, "_has_bf16_instructions", lambda: False)
    assert choose_dtype("auto") == torch.float32
    monkeypatch.setattr(models, "_has_bf16_instructions", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert choose_dtype("auto") == torch.bfloat16


def test_a_model_without_weights_has_the_same_modules(model_folder: Path):
    settings = ModelSettings(path=str(model_folder))
    bare = meta_model(settings)
    assert next(bare.parameters()).is_meta
    assert [name for name, _ in bare.named_modules()] == [name for name, _ in load_model(settings).named_modules()]


@pytest.mark.parametrize("load", [load_model, load_tokenizer, meta_model])
def test_a_missing_folder_names_its_neighbours(load: Callable[[ModelSettings], object], model_folder: Path):
    assert message(load, model_folder.with_name("tinny")) == (
        f"model.path: there is no folder {model_folder.with_name('tinny')}; did you mean '{model_folder}'? "
        "(give a local folder, a .gguf file, 'smollm2', or a hub id)"
    )


def test_names_with_a_folder_of_that_owner_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("meta-llama/Meta-Llama-3-8B")
    assert is_hub_id("gpt2")
    (tmp_path / "meta-llama").mkdir()
    assert not is_hub_id("meta-llama/Meta-Llama-3-8B")
    for path in ("meta-llama/Meta-Llama-3-8B", "a/b/c", "./gpt2", "~/gpt2"):
        with pytest.raises(ConfigError, match="there is no folder"):
            resolve_model(path)
    with pytest.raises(ConfigError, match=r"there is no file model\.gguf"):
        resolve_model("model.gguf")


def test_a_folder_without_a_model_is_one_line(tmp_path: Path):
    assert message(load_model, tmp_path).startswith(f"model.path '{tmp_path}' cannot be loaded: ")
    assert message(load_tokenizer, tmp_path).startswith(f"model.path '{tmp_path}' cannot be loaded: ")


def test_damaged_weights_are_one_line(copied: Path):
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert message(load_model, copied).startswith(f"model.path '{copied}' cannot be loaded: ")


def test_missing_weights_are_not_drawn_at_random(copied: Path):
    tensors = load_file(copied / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    assert message(load_model, copied) == (
        f"model.path '{copied}' lacks 1 of its weights (model.layers.1.mlp.up_proj.weight): get a fresh copy of the"
        " model, or "
        "check that it is for AutoModelForCausalLM, or that the adapter was saved with what it trained"
    )


def test_weights_of_another_shape_are_one_line(copied: Path):
    tensors = load_file(copied / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(32)
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    assert message(load_model, copied).startswith(f"model.path '{copied}' cannot be loaded: ")


def test_pickled_weights_are_not_read(copied: Path):
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    assert "model.safetensors" in message(load_model, copied)


@pytest.fixture
def with_code(copied: Path) -> Path:
    """A model folder that brings Python code, which leaves a file when it is run."""
    config = json.loads((copied / "config.json").read_text())
    config |= {
        "model_type": "foreign",
        "auto_map": {"AutoConfig": "code.ForeignConfig", "AutoModelForCausalLM": "code.ForeignModel"},
    }
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "code.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(copied / 'was_run')!r}).touch()\n"
        "class ForeignConfig(LlamaConfig):\n    model_type = 'foreign'\n"
        "class ForeignModel(LlamaForCausalLM):\n    config_class = ForeignConfig\n"
    )
    return copied


@pytest.mark.parametrize("load", [load_model, meta_model])
def test_code_of_a_model_is_not_run(load: Callable[[ModelSettings], object], with_code: Path):
    assert message(load, with_code) == (
        f"model.path '{with_code}' comes with Python code of its own, which is not run: read it, then set "
        "model.trust_remote_code to true, or choose a model that transformers knows"
    )
    load_tokenizer(ModelSettings(path=str(with_code)))
    assert not (with_code / "was_run").exists()


def test_code_of_a_model_is_run_where_the_recipe_says_so(
    with_code: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = load_model(ModelSettings(path=str(with_code), trust_remote_code=True))
    assert type(model).__name__ == "ForeignModel"
    assert (with_code / "was_run").exists()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(100), bytes(range(256))])
def test_a_damaged_gguf_file_is_one_line(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gguf")
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(content)
    expected = f"model.path '{tmp_path / 'model.gguf'}' cannot be loaded: "
    assert message(load_tokenizer, tmp_path / "model.gguf").startswith(expected)


def test_missing_packages_say_what_to_install(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(
        MissingDependencyError, match=r'reading model\.gguf needs the package gguf: pip install "moslora'
    ):
        load_model(ModelSettings(path=str(tmp_path / "model.gguf")))
    with pytest.raises(MissingDependencyError, match=r"model\.quantize: nf4 needs bitsandbytes: pip install"):
        load_model(ModelSettings(path=str(model_folder), quantize="nf4"))
