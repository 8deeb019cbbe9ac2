"""One LoRA file for a text-to-image pipeline, which diffusers, ComfyUI, A1111 or sd-scripts reads without our code.

The mixer is folded into A and the scale into B, so that alpha is the rank in every layer and a reader that ignores
alpha is right too. What was written is proved by the plain pipeline that loads it (`pipeline_proof`).
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch import nn

from moslora.adapter.export import plain_lora
from moslora.adapter.pipeline_names import Naming
from moslora.adapter.pipeline_proof import PipelineDrift, latents_probe, naming_of, prove_pipeline_lora
from moslora.adapter.proving import lora_layers_of
from moslora.adapter.strictness import PREFIX
from moslora.adapter.tensors import exact
from moslora.adapter.twin import base_of, uncompiled
from moslora.errors import ConfigError
from moslora.files import new_file

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for in a folder
METADATA_KEY = "lora_adapter_metadata"
# What diffusers 0.42 must find among the names of a text encoder's layers: without, it takes the file for another kind.
READ_BY = {"diffusers": (".q_proj", ".k_proj", ".v_proj", ".out_proj"), "kohya": (".out_proj",)}
Factors = tuple[torch.Tensor, torch.Tensor]


def save_pipeline_lora(
    model: nn.Module,
    path: str | Path,
    *,
    load_pipeline: Callable[[], Any],
    format: str = "diffusers",
    probe: Callable[[Any], torch.Tensor] = latents_probe,
    adapter_name: str = "default",
    allow_drift: bool = False,
) -> PipelineDrift:
    """Write an adapter as one LoRA file to `path` (new, `.safetensors`), once a plain pipeline has drawn with it.

    `model` is a PeftModel, MoSLoRA or plain LoRA, over a module that holds a pipeline's parts under their names there.
    `format` is `diffusers` or `kohya`. `load_pipeline` gives the pipeline without an adapter, on the model's device;
    `probe` draws latents with a pipeline, always of the same prompt and noise. Proved are the set of keys that arrive,
    each number to the rounding of its dtype, and the latents.

    Raises ConfigError for what such a file cannot hold (DoRA, other adapter types, saved modules, biases),
    NoEffectError where the adapter changes no latent, DriftError where a proof fails (with `allow_drift` a difference
    of the latents is only returned), and OutputError for a file that exists.
    """
    path, model = Path(path), uncompiled(model)
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} does not end in .safetensors, by which programs know such a file: rename it")
    layers = baked_layers(model, adapter_name)
    pipe = load_pipeline()
    naming = naming_of(pipe, format=format)
    layers = _readable(layers, base_of(model), format=format)
    with new_file(path) as staged:
        write_lora_file(staged, layers, naming=naming)
        return prove_pipeline_lora(
            model,
            staged,
            load_pipeline=lambda: pipe,
            probe=probe,
            adapter_name=adapter_name,
            allow_drift=allow_drift,
        )


def baked_layers(model: nn.Module, adapter_name: str = "default") -> dict[str, Factors]:
    """A' = M·A (R, …) and B' = scale · B (O, R, …) of every layer by its name in the pipeline, each rounded once.

    Raises ConfigError for what a pipeline's LoRA file cannot hold.
    """
    scales = {name: layer.scaling[adapter_name] for name, layer in lora_layers_of(base_of(model), adapter_name).items()}
    tensors = _plain_tensors(model, adapter_name)
    layers = {}
    for name, scale in scales.items():
        a, b = (tensors.pop(f"{PREFIX}{name}.{factor}.weight", None) for factor in ("lora_A", "lora_B"))
        if a is None or b is None:
            raise ConfigError(
                f"{name} has no lora_A and lora_B: a pipeline's LoRA file can hold linear layers and"
                " convolutions only, so leave it out of target_modules"
            )
        layers[name] = a, (exact(b) * scale).to(b.dtype)
    if tensors:
        raise _no_place(next(iter(tensors)), len(tensors))
    return layers


def write_lora_file(path: Path, layers: Mapping[str, Factors], *, naming: Naming) -> None:
    """Write baked layers under a format's names.

    diffusers' format describes each part in the header, for readers that would not see from the tensors that alpha is
    the rank. In kohya's format a part has one rank: diffusers 0.42 loses the alphas of attention layers where they
    differ, so smaller factors are filled up with zeros.
    """
    ranks: dict[str, dict[str, int]] = {}
    for name, (a, _) in layers.items():
        ranks.setdefault(_part(name), {})[_module(name)] = len(a)
    tensors: dict[str, torch.Tensor] = {}
    for name, factors in layers.items():
        if naming.format == "kohya":
            rank = max(ranks[_part(name)].values())
            factors = _filled(*factors, rank=rank)
            tensors[f"{naming.layer(name)}.alpha"] = torch.tensor(float(rank))
        tensors |= zip(naming.keys(name), (factor.contiguous() for factor in factors), strict=True)
    header = {METADATA_KEY: json.dumps(_metadata(ranks), sort_keys=True)} if naming.format == "diffusers" else {}
    save_file(tensors, path, metadata={"format": "pt", **header})


def _plain_tensors(model: nn.Module, adapter_name: str) -> dict[str, torch.Tensor]:
    """An adapter's tensors as plain LoRA's, by PEFT's names; ConfigError for types without such a form."""
    config, tensors = plain_lora(model, adapter_name)
    for option in dataclasses.fields(LoraConfig):
        if option.metadata.get("is_lora_variant") and getattr(config, option.name):
            raise ConfigError(
                f"{option.name} cannot be written to a pipeline's LoRA file, where readers ignore it: train without"
                " it, or fold"
                " the adapter for PEFT (save_folded, --format peft)"
            )
    return tensors


def _no_place(key: str, count: int) -> ConfigError:
    name = key.removeprefix(PREFIX)
    kind = "a bias" if key.endswith(".bias") else "no factor of LoRA's"
    more = f" (and {count - 1} more)" if count > 1 else ""
    return ConfigError(
        f"the adapter holds {name}{more}, which is {kind} and has no place in a pipeline's LoRA file: train without"
        " modules_to_save, bias and lora_bias, or fold the adapter for PEFT (save_folded, --format peft)"
    )


def _filled(a: torch.Tensor, b: torch.Tensor, *, rank: int) -> Factors:
    """A and B of a higher rank with the same product."""
    missing = rank - len(a)
    if missing == 0:
        return a, b
    more_b = b.new_zeros(b.shape[0], missing, *b.shape[2:])
    return torch.cat([a, a.new_zeros(missing, *a.shape[1:])]), torch.cat([b, more_b], dim=1)


def _readable(layers: Mapping[str, Factors], model: nn.Module, *, format: str) -> dict[str, Factors]:
    """The layers, with one of zeros more for a text encoder that diffusers would not read without (`READ_BY`)."""
    more = dict(layers)
    for part in {_part(name) for name in layers if name.startswith("text_encoder")}:
        own = [name for name in layers if _part(name) == part]
        spare = [name for name, _ in model.named_modules() if _part(name) == part and name.endswith(".out_proj")]
        if spare and not any(name.endswith(READ_BY[format]) for name in own):
            a, module = layers[own[0]][0], cast(nn.Linear, model.get_submodule(spare[0]))
            more[spare[0]] = a.new_zeros(len(a), module.in_features), a.new_zeros(module.out_features, len(a))
    return more


def _metadata(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The fields of plain LoRA's configuration for each part; few, since readers refuse a field they do not know.

    A denoiser's names are whole, since FLUX's `proj_out` is also the end of others; a text encoder's are ends, since
    they may have `text_model.` before them.
    """
    fields: dict[str, Any] = {}
    for part, own in ranks.items():
        is_encoder = part.startswith("text_encoder")
        common = Counter(own.values()).most_common(1)[0][0]
        others = {module if is_encoder else f"^{module}": rank for module, rank in own.items() if rank != common}
        fields |= {
            f"{part}.r": common,
            f"{part}.lora_alpha": common,
            f"{part}.rank_pattern": others,
            f"{part}.alpha_pattern": others,
            f"{part}.target_modules": sorted(own) if is_encoder else "|".join(map(re.escape, sorted(own))),
        }
    return fields


def _part(layer: str) -> str:
    return layer.partition(".")[0]


def _module(layer: str) -> str:
    return layer.partition(".")[2].removeprefix("text_model.")
