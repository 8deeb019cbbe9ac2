"""The methods a recipe can name, each a PEFT configuration class with some options chosen.

A recipe's `adapter:` is `method: NAME` and options of that method; they are checked against the fields of the class,
never copied into a second model. The baselines are PEFT's own. `moslora.adapter.preparing` makes a model ready to
train.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, PeftModel, VeraConfig
from transformers import TrainerCallback

from moslora.adapter.config import MosloraConfig
from moslora.adapter.export import plain_config
from moslora.adapter.fields import check_fields
from moslora.adapter.option_types import check_types
from moslora.baselines import adalora, loraplus, pissa
from moslora.baselines.loraplus import MakeOptimizer
from moslora.errors import ConfigError, MosloraError, unknown_name

INTERNAL = {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "base_model_config", "inference_mode"}
INTERNAL |= {"peft_version", "revision", "runtime_config"}
COUNTING_STEPS = 1000  # of a method that plans ahead, where it is only checked or counted


@dataclass(frozen=True)
class Method:
    """A named method.

    `defaults` are options it starts from, `fixed` those a recipe may not set. `names` gives the recipe's shared names
    for options that the class calls otherwise; `rates` the options of its optimiser (see `preparing.optimiser`) with
    their defaults; `derived` computes more options from those given and the number of optimiser steps. `limits` says
    what it cannot do.

    What a baseline does beside its class is in `moslora.baselines`: `while_training` is a callback of the Trainer,
    `before_saving` completes the adapter, `save_from_start` writes what changed the base's weights at the start as a
    difference from there, and `optimiser` builds one from the rates and the weight decay.
    """

    summary: str
    config_class: type[PeftConfig] | None  # None: no adapter, all weights are trained
    source: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    derived: Callable[[Mapping[str, Any], int], dict[str, Any]] | None = None
    is_folded_at_start: bool = False  # drawn with a mixer, trained as plain LoRA
    while_training: Callable[[PeftModel], TrainerCallback] | None = None
    before_saving: Callable[[PeftModel], None] | None = None
    save_from_start: Callable[[PeftModel, Path, Mapping[str, torch.Tensor]], None] | None = None
    optimiser: Callable[[Mapping[str, float], float], MakeOptimizer] | None = None
    quantised_bases: tuple[str, ...] = ("int8", "nf4")  # values of model.quantize it works with
    limits: str = ""

    @property
    def options(self) -> set[str]:
        """The options a recipe may set."""
        if self.config_class is None:
            return set()
        own = set(inspect.signature(self.config_class).parameters)
        return (own - INTERNAL - set(self.fixed)) | set(self.names) | set(self.rates)


def method_config(
    method: str,
    options: Mapping[str, Any],
    *,
    task_type: str | None = "CAUSAL_LM",
    total_steps: int = COUNTING_STEPS,
) -> PeftConfig | None:
    """The PEFT configuration of a method with a recipe's options; None for `full`, which has no adapter.

    `total_steps` are the optimiser steps of the training, for AdaLoRA's plan. Raises ConfigError for unknown names and
    bad values.
    """
    chosen = known_method(method)
    _check_names(method, options)
    learning_rates(method, options)
    if chosen.config_class is None:
        return None
    given = {chosen.names.get(name, name): value for name, value in options.items() if name not in chosen.rates}
    check_fields(given)
    check_types(
        chosen.config_class, {name: options[name] for name in options if name not in chosen.rates}, chosen.names
    )
    try:
        derived = chosen.derived(given, total_steps) if chosen.derived else {}
        settings = {"task_type": task_type, **chosen.defaults, **chosen.fixed, **derived, **given}
        config = chosen.config_class(**settings)  # pyright: ignore[reportArgumentType]
    except MosloraError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter: {' '.join(str(error).split())}") from None
    return plain_config(config) if chosen.is_folded_at_start and isinstance(config, MosloraConfig) else config


def known_method(name: str) -> Method:
    """The method of this name. Raises ConfigError, with the nearest name, for an unknown one."""
    if name not in METHODS:
        raise unknown_name("method", name, METHODS, listed_by="moslora methods")
    return METHODS[name]


def known_options(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that the method has."""
    return {name: value for name, value in options.items() if name in known_method(method).options}


def learning_rates(method: str, options: Mapping[str, Any]) -> dict[str, float]:
    """The ratios of learning rates a method has, as given or by default. Raises ConfigError unless above 0."""
    rates = {name: options.get(name, default) for name, default in known_method(method).rates.items()}
    for name, value in rates.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ConfigError(f"adapter.{name}={value!r}: give a number above 0")
    return rates


def _check_names(method: str, options: Mapping[str, Any]) -> None:
    chosen = METHODS[method]
    if chosen.config_class is None and options:
        raise ConfigError(
            f"method '{method}' has no adapter and takes no options: remove {', '.join(options)} from adapter:"
            " (or set them to null)"
        )
    for option in options:
        if option in chosen.fixed:
            raise ConfigError(f"adapter.{option} is fixed for method '{method}' ({chosen.fixed[option]}): remove it")
        if option not in chosen.options:
            raise unknown_name(f"option of method '{method}' in adapter:", option, chosen.options)
        own = chosen.names.get(option, option)
        if own != option and own in options:
            raise ConfigError(f"adapter.{option} and adapter.{own} are the same option of '{method}': give one")


_RATIO = {"mixer_lr_ratio": 1.0}
_LYCORIS = {"lora_alpha": "alpha", "lora_dropout": "rank_dropout"}
_PAPER = "arXiv 2406.11909"
METHODS: dict[str, Method] = {
    "lora": Method("LoRA: B·A", LoraConfig, "arXiv 2106.09685, PEFT"),
    "ts-mixing": Method(
        "two-subspace mixing: B·M·A with the fixed butterfly",
        MosloraConfig,
        f"{_PAPER}, equations 3 and 6",
        fixed={"mixer": "butterfly", "mixer_trainable": False, "mixer_depth": 1},
        limits="even ranks only",
    ),
    "moslora": Method("MoSLoRA: B·M·A with a learnable mixer M", MosloraConfig, f"{_PAPER}, equation 7", rates=_RATIO),
    "moslora-init-only": Method(
        "the control: M drawn, folded into A at the start, then plain LoRA",
        MosloraConfig,
        f"{_PAPER}, appendix E",
        fixed={"mixer_trainable": True, "fused": True, "dropout_pattern": {}},
        is_folded_at_start=True,
    ),
    "moslora-frozen": Method(
        "B·M·A with M drawn and kept", MosloraConfig, f"{_PAPER}, appendix E", fixed={"mixer_trainable": False}
    ),
    "linchain": Method(
        "LinChain: B·M3·M2·M1·A, a chain of mixers",
        MosloraConfig,
        "arXiv 2411.00039",
        defaults={"mixer_depth": 3},
        rates=_RATIO,
        limits="no biases in the chain",
    ),
    "flora": Method(
        "FLoRA: B·M·A that starts from M = 0, with A and B drawn",
        MosloraConfig,
        "FLoRA, Si et al. 2024",
        fixed={
            "mixer": "zero",
            "mixer_pattern": {},
            "init_lora_weights": False,
            "mixer_depth": 1,
            "mixer_trainable": True,
            "use_tucker": True,
            "use_dora": False,
        },
        rates=_RATIO,
    ),
    "dora": Method(
        "DoRA: magnitude and direction apart",
        LoraConfig,
        "arXiv 2402.09353, PEFT",
        fixed={"use_dora": True},
        quantised_bases=("nf4",),
        limits="no 8-bit bases",
    ),
    "moslora+dora": Method(
        "DoRA around B·M·A",
        MosloraConfig,
        f"{_PAPER} with arXiv 2402.09353",
        fixed={"use_dora": True},
        rates=_RATIO,
        quantised_bases=("nf4",),
        limits="no 8-bit bases",
    ),
    "adalora": Method(
        "AdaLoRA: ranks allocated by importance while training",
        AdaLoraConfig,
        "arXiv 2303.10512, PEFT",
        fixed={"total_step": "the training's", "rank_pattern": "found while training"},
        names={"r": "target_r"},
        derived=adalora.plan,
        while_training=adalora.AllocateRanks,
        before_saving=adalora.note_ranks,
        limits="starts with 1.5 times the ranks it ends with (the parameters counted)",
    ),
    "loha": Method(
        "LoHa: a Hadamard product of two low-rank products",
        LoHaConfig,
        "arXiv 2108.06098, PEFT",
        names=_LYCORIS,
        quantised_bases=(),
        limits="no quantised bases",
    ),
    "lokr": Method(
        "LoKr: a Kronecker product with a low-rank factor",
        LoKrConfig,
        "arXiv 2309.14859, PEFT",
        names=_LYCORIS,
        quantised_bases=(),
        limits="no quantised bases",
    ),
    "vera": Method(
        "VeRA: two learned vectors around frozen random factors",
        VeraConfig,
        "arXiv 2310.11454, PEFT",
        names={"lora_dropout": "vera_dropout"},
        limits="linear layers only; no alpha",
    ),
    "rslora": Method(
        "rsLoRA: LoRA scaled by alpha / sqrt(r)", LoraConfig, "arXiv 2312.03732, PEFT", fixed={"use_rslora": True}
    ),
    "pissa": Method(
        "PiSSA: LoRA that starts from the base's largest singular values",
        LoraConfig,
        "arXiv 2404.02948, PEFT",
        derived=pissa.start,
        save_from_start=pissa.save_difference,
        quantised_bases=(),
        limits="no quantised bases; saved as plain LoRA of twice the rank",
    ),
    "lora+": Method(
        "LoRA+: LoRA with a higher learning rate for B",
        LoraConfig,
        "arXiv 2402.12354, PEFT",
        rates={"loraplus_lr_ratio": 16.0},
        optimiser=loraplus.optimiser,
    ),
    "full": Method(
        "full fine-tuning: all weights, no adapter",
        None,
        "for scale",
        quantised_bases=(),
        limits="no quantised bases; trained in float32; saved as a full model",
    ),
}
