"""The layers of a model's parts: which belong to a part, which of them never train, and one pattern for a set of them.

`parts` maps the name of a part (language, vision, projector) to the prefix of its modules in the base model. The head,
which stands outside, belongs to the language model.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from moslora.adapter.targets import names_to_match

LANGUAGE, VISION, PROJECTOR = "language", "vision", "projector"
FEATURE_LAYERS = ("vision_feature_layer", "vision_feature_layers")  # what transformers 5.23 calls them, in VipLlava too
POOLERS = ("head", "pooler")  # of a vision tower; models that take its hidden states never use them
NUMBERED = re.compile(r"(?P<stem>.+?)\.(?P<number>\d+)\.(?P<rest>.+)")


# Where transformers keeps the parts of a model of LLaVA's layout.
LLAVA_PARTS = {
    LANGUAGE: "model.language_model",
    VISION: "model.vision_tower",
    PROJECTOR: "model.multi_modal_projector",
}
IDEFICS_PARTS = {LANGUAGE: "model.text_model", VISION: "model.vision_model", PROJECTOR: "model.connector"}
QWEN_PARTS = {LANGUAGE: "model.language_model", VISION: "model.visual", PROJECTOR: "model.visual.merger"}
LAYOUTS = (LLAVA_PARTS, IDEFICS_PARTS, QWEN_PARTS)


def parts_in(model: nn.Module) -> dict[str, str]:
    """The parts of a model of one of `LAYOUTS` by the prefixes of their modules; empty for any other model."""
    names = {name for name, _ in model.named_modules()}
    return next((dict(layout) for layout in LAYOUTS if names.issuperset(layout.values())), {})


def part_of(name: str, parts: Mapping[str, str]) -> str | None:
    """The part a module belongs to; the language model for one outside all parts, None where there is no such part."""
    prefixes = [(prefix, part) for part, prefix in parts.items() if is_within(name, prefix)]
    return (
        max(prefixes, key=lambda found: len(found[0]))[1]
        if prefixes
        else next((p for p in parts if p == LANGUAGE), None)
    )


def is_within(name: str, prefix: str) -> bool:
    """Whether a module is the one of this name or stands below it."""
    return not prefix or name == prefix or name.startswith(f"{prefix}.")


def names_in(model: nn.Module, parts: Mapping[str, str], part: str) -> list[str]:
    """The names of a part's modules, without what adapters put into them."""
    return [name for name in names_to_match(model) if name and part_of(name, parts) == part]


def linear_layers(model: Any, names: Iterable[str]) -> list[str]:
    """Those of the modules that are linear layers, without the model's head and what attention reads without a call."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    modules = dict(model.named_modules())
    read = {id(module.out_proj) for module in modules.values() if isinstance(module, nn.MultiheadAttention)}
    return [
        name
        for name in names
        if isinstance(module := modules[name], (nn.Linear, Conv1D)) and module is not head and id(module) not in read
    ]


def dead_modules(model: Any, parts: Mapping[str, str]) -> list[str]:
    """The vision modules that no gradient reaches, since the model takes the features of an earlier layer.

    These are the layers behind the last one that the configuration names (`vision_feature_layer`, if it does), and the
    tower's pooling head. A model of ours tells them itself.
    """
    if hasattr(model, "dead_modules"):
        return model.dead_modules()
    config = getattr(model, "config", None)
    chosen = next((value for key in FEATURE_LAYERS if (value := getattr(config, key, None)) is not None), None)
    prefix = parts.get(VISION)
    count = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    if prefix is None or count is None:
        return []
    tower = model.get_submodule(prefix)
    stacks = [(n, part) for n, part in tower.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count]
    if not stacks:
        return []
    indices = [-1] if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    deepest = max(index if index >= 0 else count + 1 + index for index in indices)  # 0 is what enters the first layer
    behind = [f"{stacks[0][0]}.{number}" for number in range(deepest, count)]
    pooling = [name for name, part in tower.named_children() if name in POOLERS]
    return [f"{prefix}.{name}" for name in (*behind, *pooling)]


def exact_pattern(names: Collection[str], among: Iterable[str]) -> str:
    """A regular expression that matches exactly these names, whole, of all the names `among` which they stand.

    Layers that differ only in their number share a branch; where some are left out, it lists the numbers.
    """
    rests: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    numbers: dict[str, set[str]] = defaultdict(set)
    branches = []
    for name in among:
        match = NUMBERED.fullmatch(name)
        if match is not None:
            numbers[match["stem"]].add(match["number"])
            if name in names:
                rests[match["stem"]][match["number"]].append(match["rest"])
        elif name in names:
            branches.append(re.escape(name))
    for stem, own in rests.items():
        alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for number, found in own.items():
            alike[tuple(found)].append(number)
        for found, where in alike.items():
            number = r"\d+" if {*where} == numbers[stem] else _either(where)
            branches.append(rf"{re.escape(stem)}\.{number}\.{_either([re.escape(rest) for rest in found])}")
    return "|".join(branches)


def _either(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"
