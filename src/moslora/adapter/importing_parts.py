"""XTuner's three folders for one LLaVA model, as one adapter of the model in transformers' format.

XTuner, and MoSLoRA's reference code which is built on it, writes `llm_adapter`, `visual_encoder_adapter` and
`projector`. Their layers get the names they have inside the LLaVA model; where the two adapters differ in rank, alpha,
dropout or mixer, PEFT's patterns say so; the projector becomes a module that is saved whole. Adapters of InternLM2's
fused matrices are taken apart as the matrices are: A and the mixer are copied to each of the three, B's rows divided.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from moslora.adapter.base_model import describe_base
from moslora.adapter.config import MosloraConfig
from moslora.adapter.fused import llama_names, split_rows
from moslora.adapter.importing import convert, read_config, read_tensors
from moslora.adapter.part_layers import LANGUAGE, LLAVA_PARTS, PROJECTOR, VISION, exact_pattern
from moslora.adapter.patterns import NO_MIXER
from moslora.adapter.projectors import Projector, read_projector
from moslora.adapter.targets import names_to_match
from moslora.errors import CheckpointError

FOLDERS = {LANGUAGE: "llm_adapter", VISION: "visual_encoder_adapter"}
PROJECTORS = ("projector", "projector.pth", "projector.safetensors", "projector.bin", "mm_projector.bin")
INSIDE = {  # patterns of PEFT for the layers of one adapter in a model of two
    LANGUAGE: rf"^(?!{re.escape(LLAVA_PARTS[VISION])}\.).*",
    VISION: rf"^{re.escape(LLAVA_PARTS[VISION])}\..*",
}
OWN = {"r": "rank_pattern", "lora_alpha": "alpha_pattern", "lora_dropout": "dropout_pattern"}
SHARED = ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out")  # which one adapter has for all of its layers
PEFT_PREFIX = "base_model.model."
TENSOR = re.compile(
    r"^base_model\.model\.(?P<module>.+?)\.(?P<kind>lora_(?:A|B|mixer|magnitude_vector)(?:\.weight|\.bias)?)$"
)
HEAD, HEADS = "lm_head", ("lm_head", "output")  # InternLM2's is called output, and XTuner adapts it
BY_ROW = ("lora_B", "lora_magnitude_vector")  # what has a row for each of a layer's outputs


@dataclass(frozen=True)
class PartAdapter:
    """One part's adapter as ours, its tensors still under the names of the part alone."""

    source: str
    config: MosloraConfig
    tensors: dict[str, torch.Tensor]
    has_mixers: bool


@dataclass(frozen=True)
class Imported:
    """The one adapter: its configuration and its tensors by the names PEFT saves them under."""

    config: MosloraConfig
    tensors: dict[str, torch.Tensor]
    about: dict[str, dict[str, Any]]  # of each part: adapted layers, r, lora_alpha, lora_dropout, mixer


def is_in_parts(folder: str | Path) -> bool:
    """Whether a folder holds adapters of single parts."""
    return any((Path(folder) / name).is_dir() for name in FOLDERS.values())


def read_parts(folder: str | Path) -> tuple[dict[str, PartAdapter], Projector | None]:
    """The adapters of a folder by part, and its projector where there is one; raises what reading each raises."""
    folder, parts = Path(folder), {}
    for part, name in FOLDERS.items():
        source = folder / name
        if not source.is_dir():
            continue
        fields, tensors = read_config(source), read_tensors(source)
        for option in ("rank_pattern", "alpha_pattern", "modules_to_save"):
            if fields.get(option):
                raise CheckpointError(f"{source} has {option}={fields[option]!r}, which cannot be joined: remove it")
        config, converted = convert(tensors, fields, source=str(source))
        parts[part] = PartAdapter(str(source), config, converted, has_mixers=config.mixer != "identity")
    if not parts:
        raise CheckpointError(f"{folder} has neither {' nor '.join(FOLDERS.values())}: give the folder that holds them")
    found = next((folder / name for name in PROJECTORS if (folder / name).exists()), None)
    return parts, None if found is None else read_projector(found)


def join(parts: Mapping[str, PartAdapter], projector: Projector | None, model: Any, *, base: str) -> Imported:
    """One adapter of a LLaVA model out of those of its parts; `base` is the name that is recorded for the model.

    `model` may be without weights. Where one part has mixers and the other none, the other stays plain LoRA; where
    none has, all start from the identity. Raises CheckpointError for layers that the model does not have, tensors of
    other kinds than an adapter's, and options that one adapter cannot have both ways.
    """
    mixers = {part: own.config.mixer if own.has_mixers else NO_MIXER for part, own in parts.items()}
    if not any(own.has_mixers for own in parts.values()):
        mixers = dict.fromkeys(parts, "identity")
    tensors: dict[str, torch.Tensor] = {}
    names: set[str] = set()
    about = {}
    for part, own in parts.items():
        placed, modules = _placed(part, own, model, keeps_mixer=mixers[part] != NO_MIXER)
        about[part] = {"layers": len(modules), **{option: getattr(own.config, option) for option in OWN}}
        about[part]["mixer"] = mixers[part]
        tensors |= placed
        names |= modules
    if projector is not None:
        tensors |= _placed_projector(projector, model)
    fields = _shared(parts) | _differing(parts, mixers)
    config = MosloraConfig(
        **fields,
        target_modules=exact_pattern(names, names_to_match(model)),
        modules_to_save=None if projector is None else [LLAVA_PARTS[PROJECTOR]],
        base_model_name_or_path=base,
        base_model_config=describe_base(model),
        auto_mapping={"base_model_class": type(model).__name__, "parent_library": type(model).__module__},
        inference_mode=True,
    )
    return Imported(config, tensors, about)


def target_modules(part: str, module: str) -> list[str]:
    """The modules of the LLaVA model for one of a part: one, or three for InternLM2's fused matrix."""
    if part == VISION:
        return [f"{LLAVA_PARTS[VISION]}.{module.removeprefix('vision_model.')}"]
    if module in HEADS:
        return [HEAD]
    inside = llama_names(module) or [module]
    return [f"{LLAVA_PARTS[LANGUAGE]}.{name.removeprefix('model.')}" for name in inside]


def _placed(part: str, own: PartAdapter, model: Any, *, keeps_mixer: bool) -> tuple[dict[str, torch.Tensor], set[str]]:
    """A part's tensors under the names they have in the whole model, and the modules they are for."""
    modules, placed = dict(model.named_modules()), {}
    adapted: set[str] = set()
    for key, tensor in own.tensors.items():
        match = TENSOR.match(key)
        if match is None:
            raise CheckpointError(f"{own.source} also holds {key}, which belongs to no adapter: remove it")
        kind = match["kind"]
        if kind.startswith("lora_mixer") and not keeps_mixer:
            continue
        targets = target_modules(part, match["module"])
        is_divided = len(targets) > 1 and kind.startswith(BY_ROW)
        rows = _rows(tensor, model, name=key) if is_divided else [tensor] * len(targets)
        for target, value in zip(targets, rows, strict=True):
            if target == HEAD and kind == "lora_B.weight":
                value = _with_new_rows(value, modules[HEAD])
            _check_fits(modules.get(target), value, kind=kind, target=target, source=own.source)
            placed[f"{PEFT_PREFIX}{target}.{kind}"] = value.clone()
        adapted |= {*targets}
    return placed, adapted


def _rows(tensor: torch.Tensor, model: Any, *, name: str) -> list[torch.Tensor]:
    config = model.config.text_config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    return list(split_rows(tensor, heads=heads, groups=groups, size=config.head_dim, name=name).values())


def _with_new_rows(b: torch.Tensor, head: Any) -> torch.Tensor:
    """B with rows of zeros for the tokens that the base's head has more: the image token's, at the end."""
    added = head.out_features - len(b)
    return b if added <= 0 else torch.cat([b, b.new_zeros(added, b.shape[1])])


def _check_fits(module: nn.Module | None, tensor: torch.Tensor, *, kind: str, target: str, source: str) -> None:
    if not isinstance(module, nn.Linear):
        found = "no such module" if module is None else f"a {type(module).__name__}"
        raise CheckpointError(
            f"{source} adapts what would be {target}, and the base has {found} there: give the LLaVA model of the"
            " language model and vision tower it was trained on, as moslora assemble builds it"
        )
    dimension, size = 0, len(tensor)
    if kind == "lora_A.weight":
        dimension, size = 1, module.in_features
    elif kind.startswith(BY_ROW):
        size = module.out_features
    if tensor.shape[dimension] != size:
        raise CheckpointError(
            f"{source}: {kind} for {target} has shape {tuple(tensor.shape)}, and the base's layer goes from"
            f" {module.in_features} to {module.out_features}: give the base it was trained on"
        )


def _placed_projector(projector: Projector, model: Any) -> dict[str, torch.Tensor]:
    config, prefix = model.config, LLAVA_PARTS[PROJECTOR]
    projector.check_sizes(
        vision=config.vision_config.hidden_size, language=config.text_config.hidden_size, source="the projector"
    )
    if projector.has_bias != config.multimodal_projector_bias:
        raise CheckpointError(
            f"the projector {'has' if projector.has_bias else 'lacks'} biases and the base's"
            f" {'has' if config.multimodal_projector_bias else 'lacks'} them: assemble a base with this projector"
        )
    return {f"{PEFT_PREFIX}{prefix}.{name}": tensor.clone() for name, tensor in projector.tensors.items()}


def _shared(parts: Mapping[str, PartAdapter]) -> dict[str, Any]:
    """The options that hold for all layers; CheckpointError where the parts differ in one."""
    fields: dict[str, Any] = {}
    for option in (*SHARED, "mixer_depth"):
        values = {part: getattr(own.config, option) for part, own in parts.items()}
        if option == "mixer_depth":  # which says nothing of plain LoRA
            values = {part: depth for part, depth in values.items() if parts[part].has_mixers} or {LANGUAGE: 1}
        if len({*values.values()}) > 1:
            listed = ", ".join(f"{value!r} for {part}" for part, value in values.items())
            raise CheckpointError(
                f"the adapters have different {option} ({listed}), and the joined adapter has one for all"
            )
        fields[option] = next(iter(values.values()))
    return fields


def _differing(parts: Mapping[str, PartAdapter], mixers: Mapping[str, str]) -> dict[str, Any]:
    """Rank, alpha, dropout and mixer of the first part that has them, and patterns for the other."""
    first = next(iter(parts))
    fields: dict[str, Any] = {}
    for option, pattern in OWN.items():
        values = {part: getattr(own.config, option) for part, own in parts.items()}
        fields[option] = values[first]
        fields[pattern] = {INSIDE[part]: value for part, value in values.items() if value != values[first]}
    fields["mixer"] = next(mixer for mixer in mixers.values() if mixer != NO_MIXER)
    fields["mixer_pattern"] = {INSIDE[part]: mixer for part, mixer in mixers.items() if mixer != fields["mixer"]}
    return fields
