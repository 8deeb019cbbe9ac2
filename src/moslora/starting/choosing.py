"""From what was seen to settings, each with the reason for its value."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moslora.adapter.parts import options_for
from moslora.runs.groups import VALIDATION
from moslora.starting.machine import Footprint, Machine, rounded_up, samples_at_once
from moslora.starting.sources import Sources

PAPER_LAYERS = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
RANK = 16
LONGEST = {"processor": 1024, "accelerator": 4096}  # tokens, where a sample may be left out or divided
SMALL_MODEL = 1e9  # parameters; smaller models learn at higher rates
FEWEST_STEPS, MOST_EPOCHS, EPOCHS = 60, 10, 3
FEWEST_TO_VALIDATE, MOST_TO_VALIDATE = 20, 200
FEWEST_PIECES = 5  # of one long text, to hold one out: each has hundreds of tokens to predict
LOOKS = 8  # at the validation samples in a run
TOLD = "given with --set"


@dataclass
class Choice:
    """Settings by group, those that are told before all others, and reasons by a setting's dotted name."""

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "Choice":
        """Nothing but what is told."""
        names = [
            name
            for group, own in told.items()
            for name in ([f"{group}.{key}" for key in own] if isinstance(own, Mapping) else [group])
        ]
        return cls(copy.deepcopy(dict(told)), dict.fromkeys(names, TOLD))

    def set(self, name: str, value: Any, reason: str = "", *, unless: Sequence[str] = ()) -> None:
        """Choose a value that is not told, unless others of its group, in whose place it would stand, are.

        Without a reason its explanation is written beside it.
        """
        group, _, key = name.rpartition(".")
        place = self.settings.setdefault(group, {}) if group else self.settings
        if key in place or any(other in place for other in unless):
            return
        place[key] = value
        if reason:
            self.reasons[name] = reason


def data_settings(choice: Choice, sources: Sources, *, is_on_cpu: bool, speaks: bool) -> None:
    """The samples, their format and columns; `speaks` tells whether the model has a chat template."""
    shape = sources.shape
    train = sources.train[0] if len(sources.train) == 1 else sources.train
    choice.set("data.train", train)
    if sources.validation is not None:
        choice.set("data.validation", sources.validation, unless=VALIDATION)
    choice.set(
        "data.format", shape.format, "found from the columns; one of instruction, chat, completion, text, choice"
    )
    if shape.columns:
        choice.set("data.columns", shape.columns, shape.guess or "the field, and which column of the file it is")
    if shape.format in ("instruction", "choice"):
        prompt, reason = "chat", "the model's chat template, as servers ask; or alpaca, plain"
        if not speaks:
            prompt = "plain" if is_on_cpu else "alpaca"
            reason = "the model has no chat template; plain is short, alpaca the usual one"
        choice.set("data.prompt", prompt, reason)
    if shape.format != "choice":  # whose files are read as a whole
        choice.set("data.on_bad", "skip")
    if shape.format != "text":
        choice.set("data.loss_on", "response", "answers are learned, questions are only read")


def use_settings(choice: Choice, sources: Sources, left_out: Sequence[str]) -> None:
    """Once all samples were looked at: how many there are, and whether to leave out any, of which the notes say why."""
    choice.reasons.setdefault("data.train", size(sources))
    if left_out:
        choice.reasons.setdefault("data.on_bad", " | ".join(left_out))
    elif choice.reasons.get("data.on_bad") != TOLD:
        choice.settings["data"].pop("on_bad", None)


def model_settings(choice: Choice, path: str, *, footprint: Footprint, layer_names: Sequence[str]) -> None:
    """The model and the adapter on it."""
    choice.set("model.path", path, f"{counted(footprint.parameters)} parameters")
    if footprint.is_quantised:
        choice.set("model.quantize", "nf4", "weights in 4 bits; in full they would not fit into the free memory")
    choice.set("adapter.method", "moslora", "other methods: moslora methods")
    choice.set("adapter.r", RANK)
    rank = choice.settings["adapter"]["r"]
    alpha = 2 * (rank if isinstance(rank, int) else RANK)
    choice.set("adapter.lora_alpha", alpha, "the update is scaled by lora_alpha / r")
    choice.set("adapter.lora_dropout", 0.05)
    chosen = targets(layer_names)
    every = "every linear layer but the head"
    reason = every if isinstance(chosen, str) else f"layers that get an adapter, as in the paper; all-linear: {every}"
    choice.set("adapter.target_modules", chosen, reason)
    choice.set("adapter.mixer", "orthogonal", "how the mixer starts; also kaiming (as in the paper), normal, identity")
    chosen = choice.settings["adapter"]
    known = options_for(chosen["method"], {name: value for name, value in chosen.items() if name != "method"})
    told = [name for name in chosen if choice.reasons.get(f"adapter.{name}") == TOLD]
    choice.settings["adapter"] = {name: chosen[name] for name in chosen if name in ("method", *known, *told)}


def targets(layer_names: Sequence[str]) -> str | list[str]:
    """The paper's layers where the model has them all, else every linear layer."""
    leaves = {name.rpartition(".")[2] for name in layer_names}
    return list(PAPER_LAYERS) if leaves.issuperset(PAPER_LAYERS) else "all-linear"


def length_settings(choice: Choice, lengths: Sequence[int], *, is_text: bool, is_on_cpu: bool, positions: int) -> float:
    """The longest sample, from the lengths in tokens of all (sorted) and what the model can read (`positions`).

    Returns the share of the samples that are not left out for their length.
    """
    most = min(LONGEST["processor" if is_on_cpu else "accelerator"], positions)
    longest, usual = lengths[-1], lengths[math.ceil(0.99 * len(lengths)) - 1]
    limit = rounded_up(longest if is_text or longest <= 2 * usual else usual, 8)
    choice.set("data.max_length_tokens", min(most, max(64, limit)))
    limit = choice.settings["data"]["max_length_tokens"]
    over = sum(length > limit for length in lengths) if isinstance(limit, int) else 0  # checked with the recipe
    if is_text:
        choice.set("data.packing", True, "several short texts share a row of the batch")
    elif 0 < over < len(lengths):
        choice.set("data.longer", "leave_out", "a cut answer would be learned without its end")
    reason = f"the longest {'text' if is_text else 'sample'} has {longest:,} tokens"
    if over:
        longer = choice.settings["data"].get("longer", "cut")
        done = {"cut": "divided" if is_text else "cut", "leave_out": "left out"}.get(longer, "refused")
        reason = f"{over:,} of {len(lengths):,} are longer and will be {done}, {reason}"
    told = choice.reasons.get("data.max_length_tokens")
    choice.reasons["data.max_length_tokens"] = f"{told}; {reason}" if told else reason
    return 1 - over / len(lengths) if choice.settings["data"].get("longer") == "leave_out" else 1.0


def training_settings(
    choice: Choice, *, samples: int, footprint: Footprint, machine: Machine, is_one_text: bool = False
) -> None:
    """Steps, batches and rates, for so many samples (pieces, of texts); `data.max_length_tokens` is chosen already."""
    tokens = choice.settings["data"]["max_length_tokens"]
    _validation_settings(choice, samples=samples, fewest=FEWEST_PIECES if is_one_text else FEWEST_TO_VALIDATE)
    training = choice.settings.setdefault("training", {})
    batch = next(size for size, fewest in ((16, 160), (8, 32), (4, 8), (1, 0)) if samples >= fewest)
    batch = training.get("batch_size") or batch
    a_epoch = max(1, math.ceil((samples - (choice.settings["data"].get("validation_samples") or 0)) / batch))
    epochs = min(MOST_EPOCHS, max(EPOCHS, math.ceil(FEWEST_STEPS / a_epoch)))
    choice.set(
        "training.epochs", epochs, f"passes over the data, about {a_epoch * epochs} steps in all", unless=["max_steps"]
    )
    choice.set("training.batch_size", batch)
    _memory_settings(choice, footprint, machine, batch=batch, tokens=tokens)
    is_small = footprint.parameters < SMALL_MODEL
    rate = "the highest, reached after the warm-up; larger models get a lower one" if is_small else ""
    choice.set("training.learning_rate", 5e-4 if is_small else 3e-4, rate)
    choice.set("training.schedule", "cosine")
    choice.set("training.warmup_ratio", 0.05, unless=["warmup_steps"])
    if any(choice.settings["data"].get(name) for name in VALIDATION):
        steps = training.get("max_steps") or math.ceil(a_epoch * training["epochs"])
        choice.set("training.evaluate_every_steps", max(1, steps // LOOKS))
        choice.set("training.keep_best", training["evaluate_every_steps"] is not None)


def _validation_settings(choice: Choice, *, samples: int, fewest: int) -> None:
    """Set some samples apart, where there is nothing else to validate on."""
    if samples >= fewest:
        reason = "samples that are not trained on; the loss on them shows what was learned"
        held_out = min(MOST_TO_VALIDATE, max(1, samples // 10))
        choice.set("data.validation_samples", held_out, reason, unless=VALIDATION)


def _memory_settings(choice: Choice, footprint: Footprint, machine: Machine, *, batch: int, tokens: int) -> None:
    for checkpointing in (False, True):
        at_once = samples_at_once(
            footprint, batch_size=batch, tokens=tokens, free_bytes=machine.free_bytes, checkpointing=checkpointing
        )
        if at_once is not None:
            break
    needed = footprint.step_bytes(samples=at_once or 1, tokens=tokens, checkpointing=checkpointing) / 1e9
    fits = f"this many at once need about {needed:.1f} GB of memory, {machine.free_bytes / 1e9:.1f} GB are free"
    choice.set("training.micro_batch_size", at_once or 1, fits if at_once else f"{fits}: IT MAY NOT FIT")
    if checkpointing:
        choice.set(
            "training.gradient_checkpointing",
            True,
            "slower, but without it not even one sample would fit into the memory",
        )


def evaluation_settings(choice: Choice, tasks: Sequence[str]) -> None:
    """Questions of one's own to judge by."""
    if tasks:
        choice.set("evaluation.tasks", list(tasks))
        choice.set("evaluation.before", True, "score the untrained model too, to compare with")


def pieces(lengths: Sequence[int], sources: Sources, *, tokens: int) -> int:
    """About how many rows of so many tokens the texts make, from the lengths of some or all of them."""
    return max(1, math.ceil(sum(lengths) / tokens * sources.samples / len(lengths)))


def numbered(count: int, name: str) -> str:
    """A count with its name, `1 sample` or `2 samples`."""
    return f"{count:,} {name}{'s' * (count != 1)}"


def size(sources: Sources) -> str:
    """`149 samples, 1 left out`."""
    return numbered(sources.samples, "sample") + (f", {sources.left_out} left out" if sources.left_out else "")


def counted(number: float) -> str:
    """A number of parameters as people say it."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:,.0f}"


def lines(choice: Choice) -> list[str]:
    """The choices that matter most, a line each."""
    data, training = choice.settings["data"], choice.settings["training"]
    is_split = data.get("validation") == data["train"]
    share = data.get("validation_share")
    held_out = data.get("validation_samples") or 0
    validated: Mapping[str, str] = {
        "validation_share": f"the loss on a share of {share} that is not trained on",
        "validation": f"the loss on {data.get('validation')}{' (its validation split)' * is_split}",
        "validation_samples": f"the loss on {numbered(held_out, 'sample')} not trained on",
    }
    told = [text for name, text in validated.items() if data.get(name)]
    tasks = choice.settings.get("evaluation", {}).get("tasks", [])
    template = choice.reasons.get("data.chat_template")
    return [
        *([f"chat template {data['chat_template']} ({template})"] if template else []),
        f"at most {data['max_length_tokens']} tokens a sample ({choice.reasons['data.max_length_tokens']})",
        f"{numbered(training['batch_size'], 'sample')} a step, {training['micro_batch_size']} at once"
        f" ({choice.reasons['training.micro_batch_size']})",
        f"{training['max_steps']} steps"
        if training.get("max_steps")
        else f"{training['epochs']} epochs ({choice.reasons['training.epochs']})",
        f"judged by {' and '.join([*told, *tasks])}"
        if told or tasks
        else f"nothing to judge it by, with fewer than {FEWEST_TO_VALIDATE} samples: give questions with --task FILE",
    ]
