"""The recipe for some sources, a model and a machine: chosen, tried without weights, and written with its reasons."""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.comparison.cost import measure, shortened
from moslora.comparison.timing import duration
from moslora.data.calls import TOOLS_TEMPLATE
from moslora.data.prompts import CHAT
from moslora.data.showing import marked_lines, marked_text
from moslora.data.template import CHATML_END
from moslora.data.template_choice import shows_tools
from moslora.errors import command
from moslora.runs.commented import commented
from moslora.runs.counting import trainable_parameters
from moslora.runs.folder import RunFolder
from moslora.runs.groups import VALIDATION, ModelSettings, Recipe
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.models import choose_dtype, load_tokenizer, meta_model
from moslora.runs.recipe import parse_recipe
from moslora.runs.run import plan_run
from moslora.runs.steps import RunPlan
from moslora.starting import choosing
from moslora.starting.choosing import Choice, size
from moslora.starting.machine import USABLE, Footprint, Machine
from moslora.starting.sources import Sources

STEPS = 2  # timed, after one to warm up
WHOLE = 1 << 24  # tokens: no sample is cut while lengths are measured
MEASURED = 5000  # samples of each source
SHOWN = 2  # rendered samples
SAFE_POSITIONS = 2048  # of a model that does not say how long a text it reads


@dataclass(frozen=True)
class Proposal:
    """A recipe, its commented text, what was seen, what was chosen, the steps, and rendered samples in marked lines."""

    recipe: Recipe
    text: str
    seen: dict[str, str]
    chosen: list[str]
    steps: int
    samples: list[list[str]]


def propose(
    sources: Sources, *, name: str, path: str, machine: Machine, tasks: Sequence[str], told: Mapping[str, Any]
) -> Proposal:
    """Choose every setting that matters; those that are `told`, group by group, stay as they are.

    What is proposed has passed all that a run checks before it loads weights. Raises the errors of `moslora.errors`.
    """
    is_on_cpu = machine.accelerator is None
    choice = Choice.of(told)
    settings = _model_settings(path, told)
    on_meta = meta_model(settings)
    layers = [name for name, module in on_meta.named_modules() if isinstance(module, nn.Linear)]
    footprint = _footprint(on_meta, settings, machine)
    choosing.model_settings(choice, path, footprint=footprint, layer_names=layers)
    tokenizer = load_tokenizer(settings)
    choosing.data_settings(choice, sources, is_on_cpu=is_on_cpu, speaks=bool(tokenizer.chat_template))
    if sources.shape.format == "chat":
        _chat_template(choice, tokenizer, has_calls=sources.has_calls)
    lengths, bad = _lengths(choice, name=name)
    positions = getattr(on_meta.config.get_text_config(), "max_position_embeddings", None) or SAFE_POSITIONS
    is_text = sources.shape.format == "text"
    kept = choosing.length_settings(choice, lengths, is_text=is_text, is_on_cpu=is_on_cpu, positions=positions)
    samples = round((sources.samples - bad) * kept)
    if is_text:
        samples = choosing.pieces(lengths, sources, tokens=choice.settings["data"]["max_length_tokens"])
    is_one_text = is_text and sources.samples == 1
    choosing.training_settings(choice, samples=samples, footprint=footprint, machine=machine, is_one_text=is_one_text)
    choosing.evaluation_settings(choice, tasks)
    plan = _planned(choice.settings, name=name)
    sources, left_out = _used(sources, plan)
    choosing.use_settings(choice, sources, left_out)
    recipe = _recipe(choice.settings, name=name)
    return Proposal(
        recipe=recipe,
        text=commented(
            LanguageRecipe, choice.settings, head=_head(recipe, sources, tasks), reasons=choice.reasons, complete=False
        ),
        seen=_seen(sources, lengths, choice, machine=machine, dtype=str(choose_dtype(settings.dtype)))
        | ({"left out": " | ".join(left_out)} if left_out else {}),
        chosen=choosing.lines(choice),
        steps=plan.total_steps,
        samples=[marked_lines(marked_text(row, plan.processor)) for row in _first(plan)],
    )


def _model_settings(path: str, told: Mapping[str, Any]) -> ModelSettings:
    """The model's settings, checked. Raises ConfigError."""
    settings = {"name": "model", "model": {"path": path, **told.get("model", {})}, "data": {"train": "-"}}
    return parse_recipe(settings, source="the recipe").model


def _chat_template(choice: Choice, tokenizer: PreTrainedTokenizerBase, *, has_calls: bool) -> None:
    """Choose a template for a model that has none, or none that shows the samples' tools: one whose tokens it knows."""
    knows_chatml = CHATML_END in tokenizer.get_vocab()
    if has_calls and knows_chatml and not shows_tools(tokenizer):
        choice.set("data.chat_template", TOOLS_TEMPLATE, "the samples have tools, which the model's own does not show")
    elif not tokenizer.chat_template:
        name = "chatml" if knows_chatml else "plain"
        choice.set("data.chat_template", name, "the model has none of its own")


def measured(proposal: Proposal) -> str:
    """A few steps of the recipe, trained and timed: how long it takes and how much memory, in a line.

    Raises what a run raises.
    """
    load = os.getloadavg()[0]
    found = measure(shortened(proposal.recipe, steps=STEPS, source="the recipe"))
    step = median(found.seconds)
    return (
        f"{step:.2g} s a step, about {duration(step * proposal.steps)} for {proposal.steps} steps;"
        f" {found.peak_memory_bytes / 1e9:.1f} GB at most in {STEPS + 1} steps{_busy(load)}"
    )


def _busy(load: float) -> str:
    """What to try where other programs had a load before steps were timed on processors."""
    is_busy = load > (os.cpu_count() or 1) / 2 and torch.get_num_threads() > 1 and not torch.accelerator.is_available()
    return f"; other programs keep the cores busy (load {load:.1f}): OMP_NUM_THREADS=1 may be faster" if is_busy else ""


def _first(plan: RunPlan) -> list[Any]:
    """The samples to show, from as many sources as there are."""
    by_turns = zip_longest(*plan.material.first.values())
    return [row for rows in by_turns for row in rows if row is not None][:SHOWN]


def _footprint(on_meta: Any, settings: ModelSettings, machine: Machine) -> Footprint:
    parameters = sum(parameter.numel() for parameter in on_meta.parameters())
    dtype = choose_dtype(settings.dtype)
    is_large = machine.accelerator is not None and parameters * dtype.itemsize > USABLE * machine.free_bytes
    layers = [name for name, module in on_meta.named_modules() if isinstance(module, nn.Linear)]
    options = {"r": choosing.RANK, "target_modules": choosing.targets(layers)}
    return Footprint.of(
        on_meta.config,
        parameters=parameters,
        trainable=trainable_parameters(settings, "moslora", options),
        dtype=dtype,
        is_quantised=settings.quantize == "nf4" or is_large,
    )


def _lengths(choice: Choice, *, name: str) -> tuple[list[int], int]:
    """The sorted lengths in tokens of the first samples, each at its whole length, and how many cannot be used."""
    settings = copy.deepcopy(choice.settings)
    unwanted = {**dict.fromkeys(VALIDATION), "packing": False, "validation_samples": 0, "longer": "cut"}
    settings["data"] |= unwanted | {"max_length_tokens": WHOLE, "limit": settings["data"].get("limit") or MEASURED}
    settings |= {"evaluation": None, "training": None}
    plan = _planned(settings, name=name)
    return sorted(len(row["input_ids"]) for row in plan.material.rows), _bad(plan)


def _planned(settings: Mapping[str, Any], *, name: str) -> RunPlan:
    """Checked as a run checks it before it loads weights."""
    with TemporaryDirectory() as scratch:
        return plan_run(_recipe(settings, name=name), RunFolder(Path(scratch)))


def _recipe(settings: Mapping[str, Any], *, name: str) -> Recipe:
    return parse_recipe({"name": name, **settings}, source="the recipe")


def _bad(plan: RunPlan) -> int:
    """The samples to train on that cannot be used."""
    return sum(len(reading.reasons) for reading in plan.material.readings["train"])


def _used(sources: Sources, plan: RunPlan) -> tuple[Sources, list[str]]:
    """The sources with the numbers of samples that can and cannot be used, and notes on the latter."""
    bad = _bad(plan)
    notes = [note for own in plan.material.readings.values() for reading in own for note in reading.left_out()]
    return replace(sources, samples=sources.samples - bad, left_out=bad), notes


def _head(recipe: Recipe, sources: Sources, tasks: Sequence[str]) -> str:
    name = recipe.name
    file = f"{name}.yaml"
    talk = ["--chat"] if recipe.data.trained_with == CHAT else ["..."]
    asked = [part for task in tasks or ["questions.csv"] for part in ("--task", task)]
    return f"""\
# {", ".join(sources.train)}: {size(sources)}
#
#   train      {command("train", file)}
#   evaluate   {command("evaluate", f"runs/{name}", *asked)}
#   talk to it {command("generate", f"runs/{name}", *talk)}
#   as LoRA    {command("fold", f"runs/{name}")}
#
# Written by moslora init. Settings that are not here keep their defaults: {command("settings")} explains each,
# {command("recipes", "show", _skeleton(sources))} prints a recipe with all of them."""


def _skeleton(sources: Sources) -> str:
    return {"completion": "instruction"}.get(sources.shape.format, sources.shape.format)


def _seen(sources: Sources, lengths: Sequence[int], choice: Choice, *, machine: Machine, dtype: str) -> dict[str, str]:
    shape = sources.shape
    columns = ", ".join(f"{column} as {field}" for field, column in shape.columns.items())
    data = f"{', '.join(sources.train)}: {size(sources)}, format {shape.format}"
    unused = f"; not used: {', '.join(shape.unused)}" if shape.unused else ""
    model = choice.settings["model"]["path"]
    return {
        "data": f"{data}{f' ({columns})' if columns else ''}{unused}",
        **({"guess": f"{shape.guess}; wrong? --set data.columns=..."} if shape.guess else {}),
        "lengths": _spread(lengths),
        "model": f"{model}: {choice.reasons.get('model.path', '')}, {dtype.removeprefix('torch.')}",
        "machine": str(machine),
    }


def _spread(lengths: Sequence[int]) -> str:
    """What sorted lengths in tokens are like."""
    shortest, longest = lengths[0], lengths[-1]
    if shortest == longest:
        return f"{longest:,} tokens" if len(lengths) == 1 else f"each has {longest:,} tokens"
    half, usual = lengths[len(lengths) // 2], lengths[min(len(lengths) - 1, int(0.99 * len(lengths)))]
    return f"half have at most {half:,} tokens, 99 % at most {usual:,}, the longest has {longest:,}"
