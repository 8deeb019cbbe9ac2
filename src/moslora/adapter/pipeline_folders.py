"""A pipeline's adapter as plain LoRA in a folder a part, which PEFT reads: `unet/`, `text_encoder/`, ….

For what one LoRA file of diffusers cannot hold (DoRA, biases, modules saved whole), and for who goes on with PEFT.
"""

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import nn

from moslora.adapter.export import plain_lora
from moslora.adapter.pipeline_proof import PipelineDrift, latents_probe, parts_of, prove_export
from moslora.adapter.proving import A_KEYS, LOADED, compare_factors, lora_layers_of, saved_tensors
from moslora.adapter.strictness import PREFIX
from moslora.adapter.tensors import Comparison
from moslora.adapter.twin import base_of, own_empty, plain_twin, uncompiled
from moslora.files import new_folder

# What names layers in the whole pipeline's configuration; each part names its own layers one by one.
_NAMING = ("exclude_modules", "layers_to_transform", "layers_pattern", "target_parameters", "modules_to_save")


def save_pipeline_folders(
    model: nn.Module,
    folder: str | Path,
    *,
    load_pipeline: Callable[[], Any],
    probe: Callable[[Any], torch.Tensor] = latents_probe,
    adapter_name: str = "default",
    allow_drift: bool = False,
) -> PipelineDrift:
    """Write an adapter to `folder` (new or empty), a folder a part, once a plain pipeline has drawn with them.

    As `save_pipeline_lora`, which says what the arguments are, what is proved and what is raised; here PEFT loads each
    part (`PeftModel.from_pretrained(pipe.unet, folder / "unet")`).
    """
    model = uncompiled(model)
    config, tensors = plain_lora(model, adapter_name)
    pipe = load_pipeline()
    parts = [name for name in parts_of(pipe) if any(key.startswith(f"{PREFIX}{name}.") for key in tensors)]
    with new_folder(folder) as staged:
        for name in parts:
            own = f"{PREFIX}{name}."
            (staged / name).mkdir()
            found = {PREFIX + key.removeprefix(own): tensor for key, tensor in tensors.items() if key.startswith(own)}
            save_file(found, staged / name / "adapter_model.safetensors", metadata={"format": "pt"})
            part = base_of(model).get_submodule(name)
            _part_config(config, part, adapter_name).save_pretrained(str(staged / name))
        loading = partial(_arriving, model, staged, parts, tensors, adapter_name)
        return prove_export(model, pipe, loading, what="what PEFT reads", probe=probe, allow_drift=allow_drift)


def _part_config(config: LoraConfig, part: nn.Module, adapter_name: str) -> LoraConfig:
    """The configuration with the layers, ranks and alphas of one part, by whole names."""
    layers = lora_layers_of(part, adapter_name)
    ranks = {name: layer.r[adapter_name] for name, layer in layers.items()}
    alphas = {name: layer.lora_alpha[adapter_name] for name, layer in layers.items()}
    plain = copy.copy(config)
    for name in _NAMING:
        setattr(plain, name, None)
    whole = [
        name
        for name, module in part.named_modules()
        if isinstance(module, ModulesToSaveWrapper) and adapter_name in module.modules_to_save
    ]
    plain.modules_to_save = whole or None
    plain.target_modules = f"^({'|'.join(map(re.escape, sorted(layers)))})$"
    plain.r, plain.rank_pattern = _common(ranks)
    plain.lora_alpha, plain.alpha_pattern = _common(alphas)
    plain.inference_mode = True
    return plain


def _common(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The most frequent value, and the others by whole name."""
    usual = Counter(values.values()).most_common(1)[0][0]
    return usual, {f"^{re.escape(name)}": value for name, value in values.items() if value != usual}


@contextmanager
def _arriving(
    model: nn.Module,
    folder: Path,
    parts: list[str],
    tensors: Mapping[str, torch.Tensor],
    adapter_name: str,
    proof: Comparison,
    pipe: Any,
) -> Iterator[None]:
    """The pipeline with each part as PEFT loads it, its tensors compared; the plain parts come back afterwards."""
    own = {name: getattr(pipe, name) for name in parts}
    is_wide = any(tensor.dtype == torch.float32 for tensor in tensors.values())
    loaded: dict[str, PeftModel] = {}
    try:
        for name, part in own.items():
            twin = plain_twin(part)
            keys = (key.removeprefix(f"{PREFIX}{name}.") for key in tensors if key.startswith(f"{PREFIX}{name}."))
            own_empty(twin, [key.replace(".base_layer.", ".") for key in keys])
            try:
                loaded[name] = PeftModel.from_pretrained(twin, str(folder / name), autocast_adapter_dtype=is_wide)
            except (KeyError, RuntimeError, ValueError) as error:
                proof.refuse(f"{name} does not load ({' '.join(str(error).split())[:300]})")
            setattr(pipe, name, loaded[name].base_model.model)
        _prove_tensors(proof, loaded, model=model, tensors=tensors, adapter_name=adapter_name)
        yield
    finally:
        for name, part in own.items():
            setattr(pipe, name, part)


def _prove_tensors(
    proof: Comparison,
    loaded: Mapping[str, PeftModel],
    *,
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    adapter_name: str,
) -> None:
    """Compare what PEFT holds in each part with the adapter's A' = M·A, B and scale, and with all else it saves."""
    ours = lora_layers_of(base_of(model), adapter_name)
    plain = {
        f"{name}.{layer}": module
        for name, part in loaded.items()
        for layer, module in lora_layers_of(base_of(part), LOADED).items()
    }
    proof.same_names(ours, plain)
    for name, layer in ours.items():
        compare_factors(proof, name, layer, plain[name], adapter_name=adapter_name)
    arrived = {
        key.replace(PREFIX, f"{PREFIX}{name}.", 1): tensor
        for name, part in loaded.items()
        for key, tensor in saved_tensors(part, LOADED).items()
    }
    proof.same_names(tensors, arrived)
    for key, tensor in tensors.items():
        if not key.endswith(A_KEYS):  # compared above
            proof.check(key, tensor, arrived[key], path=(tensor.dtype, arrived[key].dtype))
