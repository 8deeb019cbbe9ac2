"""From a base model and a method's name to a model ready to train, and from the trained model to its folder."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn
from torch.optim import Optimizer
from transformers import TrainerCallback

from moslora.adapter.config import MosloraConfig
from moslora.adapter.coverage import covered_layers
from moslora.adapter.experts import check_plain_targets
from moslora.adapter.export import fold, plain_config
from moslora.adapter.methods import COUNTING_STEPS, Method, known_method, learning_rates, method_config
from moslora.adapter.targets import check_is_called, check_patterns
from moslora.adapter.twin import base_of
from moslora.baselines.loraplus import MakeOptimizer
from moslora.errors import CheckpointError, ConfigError


def prepare(
    model: nn.Module,
    method: str,
    options: Mapping[str, Any],
    *,
    total_steps: int = COUNTING_STEPS,
    task_type: str | None = "CAUSAL_LM",
) -> nn.Module:
    """The model with the method's adapter drawn, its parameters to train marked; seed before.

    `full` trains all of the model's weights, in float32 as adapters are. `task_type` is PEFT's. Raises what
    `method_config` raises.
    """
    config = method_config(method, options, total_steps=total_steps, task_type=task_type)
    if config is None:
        return model.float().requires_grad_(True)
    chosen = known_method(method)
    if not chosen.is_folded_at_start:
        return _inject(model, config)
    return _folded_at_start(model, _drawn_first(chosen, options, task_type=config.task_type))


def _inject(model: nn.Module, config: Any, **options: Any) -> Any:
    """The model with an adapter, without PEFT's warning of rank patterns that it made itself for experts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys did not match", RuntimeWarning)
        return get_peft_model(model, config, **options)  # pyright: ignore[reportArgumentType]


def prepare_without_weights(
    model: nn.Module, method: str, options: Mapping[str, Any], *, task_type: str | None = "CAUSAL_LM"
) -> nn.Module:
    """The model with the method's adapter, on the same layers as `prepare` puts it, for a model on the meta device.

    Nothing is drawn or folded. Raises as `prepare`, and for a pattern that matches nothing and a layer that is never
    called, with any method.
    """
    config: Any = method_config(method, options, task_type=task_type)
    if config is None:
        return model
    check_patterns(config, [name for name, _ in model.named_modules()])
    chosen = known_method(method)
    if chosen.is_folded_at_start:
        first: Any = _drawn_first(chosen, options, task_type=config.task_type)
        drawn = _inject(model, first, low_cpu_mem_usage=True)
        config, model = plain_config(drawn.peft_config["default"]), drawn.unload()
        check_plain_targets(config, model)
    adapted = _inject(model, config, low_cpu_mem_usage=True)
    for layer in covered_layers(adapted):
        check_is_called(base_of(adapted), layer["name"])
    return adapted


def check_quantisable(method: str, quantisation: str) -> None:
    """Raise ConfigError for a method that cannot train on a base quantised in this way."""
    allowed = ("none", *known_method(method).quantised_bases)
    if quantisation not in allowed:
        raise ConfigError(
            f"method '{method}' does not work on a base with model.quantize: {quantisation} (allowed:"
            f" {', '.join(allowed)}), or choose another method: moslora methods"
        )


def callbacks(model: nn.Module, method: str) -> list[TrainerCallback]:
    """What the method does while the Trainer trains."""
    act = known_method(method).while_training
    return [act(model)] if act is not None and isinstance(model, PeftModel) else []


def optimiser(
    method: str, options: Mapping[str, Any], *, weight_decay: float, rates: Mapping[str, float] = MappingProxyType({})
) -> MakeOptimizer | None:
    """What builds the optimiser where parts of the model learn at rates of their own; None where all learn alike.

    `loraplus_lr_ratio` multiplies B's rate (PEFT's LoRA+), `mixer_lr_ratio` the mixers'; `rates` are those of modules,
    by their names in the base model. Raises ConfigError for such rates with LoRA+.
    """
    ratios = learning_rates(method, options)
    build = known_method(method).optimiser
    if build is not None and rates:
        raise ConfigError(
            f"method '{method}' groups the parameters itself, so {', '.join(rates)} cannot have a rate of its own:"
            " remove it, or choose another method"
        )
    if build is not None:
        return build(ratios, weight_decay)
    if ratios.get("mixer_lr_ratio", 1.0) == 1.0 and not rates:
        return None

    def by_rate(model: nn.Module, kind: type[Optimizer], settings: dict[str, Any]) -> Optimizer:
        mixers = {"lora_mixer": settings["lr"] * ratios.get("mixer_lr_ratio", 1.0)}
        groups: dict[float, list[nn.Parameter]] = {settings["lr"]: []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                own = [rate for module, rate in {**mixers, **rates}.items() if f".{module}." in f".{name}"]
                groups.setdefault(own[0] if own else settings["lr"], []).append(parameter)
        given: list[dict[str, Any]] = [{"params": found, "lr": rate} for rate, found in groups.items() if found]
        return kind(given, weight_decay=weight_decay, **settings)  # pyright: ignore[reportCallIssue]

    return by_rate


def starting_tensors(model: nn.Module, method: str) -> dict[str, torch.Tensor] | None:
    """What `save_trained` must know of the adapter as it was drawn, for a method that changes the base's weights."""
    if known_method(method).save_from_start is None:
        return None
    return {name: tensor.clone() for name, tensor in get_peft_model_state_dict(model).items()}


def save_trained(model: Any, folder: Path, *, method: str, start: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the trained adapter (or, for `full`, the model), so that it gives its outputs on the untouched base.

    `start` is what `starting_tensors` gave: the method then writes the difference from there.
    """
    chosen = known_method(method)
    if chosen.before_saving is not None:
        chosen.before_saving(model)
    if chosen.save_from_start is not None and start is not None:
        chosen.save_from_start(model, folder, start)
    else:
        model.save_pretrained(str(folder))


def _drawn_first(chosen: Method, options: Mapping[str, Any], *, task_type: Any) -> MosloraConfig:
    """The configuration of the mixer that a method folds away at the start."""
    return MosloraConfig(**{"task_type": task_type, **chosen.fixed, **options})


def _folded_at_start(model: nn.Module, config: MosloraConfig) -> nn.Module:
    """The model with plain LoRA that starts where the mixer, folded into A, would start it."""
    drawn: Any = get_peft_model(model, config)  # pyright: ignore[reportArgumentType]
    plain, tensors = fold(drawn)
    adapted = get_peft_model(drawn.unload(), plain)
    loaded = set_peft_model_state_dict(adapted, tensors)
    if loaded.unexpected_keys:
        raise CheckpointError(f"the folded start does not fit plain LoRA: {loaded.unexpected_keys[:3]} have no place")
    return adapted


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that saving would write."""
    return get_peft_model_state_dict(model) if isinstance(model, PeftModel) else model.state_dict()
