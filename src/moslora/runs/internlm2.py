"""InternLM2 in Llama's layout: the same numbers under other names, its fused weights taken apart.

InternLM2 holds queries, keys and values in one matrix `wqkv`: for each group of query heads that share a key head, the
group's queries, then its key, then its value. transformers has no class for it, and the code that its folders come
with is not run.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from moslora.adapter.fused import PARTS, llama_names, split_rows
from moslora.adapter.importing import read_tensor_file
from moslora.errors import CheckpointError, ConfigError

MODEL_TYPE = "internlm2"
FILES = ["*.json", "*.safetensors", "*.bin", "tokenizer.model"]
NAMES = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "model.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
SAME_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "tie_word_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
SCALINGS = ("linear", "dynamic")  # of positions: the same formulas in both layouts


def is_internlm2(place: str) -> bool:
    """Whether a model's folder or hub id says that it is an InternLM2; only its configuration is read."""
    return PreTrainedConfig.get_config_dict(place)[0].get("model_type") == MODEL_TYPE


def local_folder(place: str) -> Path:
    """The folder of a model with its weights, fetched from the hub where `place` is no folder; no code is fetched."""
    return Path(place) if Path(place).is_dir() else Path(snapshot_download(place, allow_patterns=FILES))


def load_internlm2(place: str, *, dtype: torch.dtype) -> LlamaForCausalLM:
    """An InternLM2 model (folder or hub id) as a Llama model that computes the same, in evaluation mode.

    Raises CheckpointError for weights that are missing, left over or of other shapes, ConfigError for a configuration
    that Llama's layout has no place for.
    """
    folder = local_folder(place)
    config = llama_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tensors = llama_tensors(_weights(folder), config)
    if config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    loaded: Any = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
    )
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(str(name) for name in info[kind]):
            raise CheckpointError(
                f"{place} does not hold what its config.json says: {kind.replace('_', ' ')} {', '.join(names[:3])};"
                " get a fresh copy of the model"
            )
    return model.eval()


def llama_config(fields: Mapping[str, Any]) -> LlamaConfig:
    """The Llama configuration for an InternLM2's `config.json`. Raises ConfigError for a scaling of another kind."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": float(fields.get("rope_theta") or 10_000)}
    if scaling := fields.get("rope_scaling"):
        kind = scaling.get("type", scaling.get("rope_type"))
        if kind not in SCALINGS:
            raise ConfigError(
                f"rope_scaling of type '{kind}' cannot be converted (allowed: {', '.join(SCALINGS)}, or none): correct"
                " it in the model's config.json"
            )
        rope |= {"rope_type": kind, "factor": float(scaling["factor"])}
    return LlamaConfig(
        **{name: fields[name] for name in SAME_FIELDS if name in fields},
        attention_bias=bool(fields.get("bias", False)),
        rope_parameters=rope,
    )


def llama_tensors(tensors: Mapping[str, torch.Tensor], config: LlamaConfig) -> dict[str, torch.Tensor]:
    """InternLM2's tensors under Llama's names, `wqkv` split; CheckpointError for any other name."""
    shape: Any = {"heads": config.num_attention_heads, "groups": config.num_key_value_heads, "size": config.head_dim}
    renamed: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        module, _, kind = key.rpartition(".")
        targets = llama_names(module)
        if key in NAMES:
            renamed[NAMES[key]] = tensor
        elif len(targets) == len(PARTS):
            rows = split_rows(tensor, name=key, **shape)
            renamed |= {f"{target}.{kind}": part for target, part in zip(targets, rows.values(), strict=True)}
        elif targets:
            renamed[f"{targets[0]}.{kind}"] = tensor
        elif not key.endswith("rotary_emb.inv_freq"):  # follows from the configuration
            raise CheckpointError(f"{key} is not a tensor of an InternLM2 model: get a fresh copy of the model")
    return renamed


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a model's folder: safetensors, else torch's files read as tensors only."""
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise CheckpointError(f"{folder} has no *.safetensors and no pytorch_model*.bin: get a fresh copy of the model")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= read_tensor_file(file)
    return tensors
