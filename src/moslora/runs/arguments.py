"""A recipe's training settings in transformers' terms."""

import math
import os
from importlib import util
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from moslora.adapter.preparing import optimiser
from moslora.adapter.twin import base_of
from moslora.errors import ConfigError, MissingDependencyError
from moslora.runs.abilities import check_trainable, is_on_cpu
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.models import choose_dtype


def training_arguments(recipe: Recipe, checkpoints: Path) -> TrainingArguments:
    """The Trainer's arguments, with checkpoints in the given folder.

    Raises ConfigError for a value that transformers refuses, MissingDependencyError for a tracker that is not
    installed.
    """
    settings = recipe.training
    check_trainable(recipe.model)
    for tracker in settings.trackers:
        if util.find_spec(tracker) is None:
            raise MissingDependencyError(f"training.trackers: {tracker} is not installed: pip install {tracker}")
    is_accelerated = not is_on_cpu(recipe.model)
    precision = _precision(recipe)
    devices = int(os.environ.get("WORLD_SIZE", "1"))
    evaluate_every = settings.evaluate_every_steps
    save_every = settings.save_every_steps or evaluate_every
    try:
        return TrainingArguments(
            output_dir=str(checkpoints.absolute()),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.micro_batch_size or max(1, settings.batch_size // devices),
            per_device_eval_batch_size=recipe.evaluation.batch_size,
            gradient_accumulation_steps=settings.accumulation_steps(devices=devices),
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup_steps if settings.warmup_ratio is None else settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim=settings.optimizer,
            activation_checkpointing=settings.gradient_checkpointing,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            eval_strategy="steps" if evaluate_every else "no",
            eval_steps=evaluate_every,
            save_strategy="steps" if save_every else "no",
            save_steps=save_every or 500,
            save_total_limit=2,
            load_best_model_at_end=settings.keep_best,
            metric_for_best_model="loss" if settings.keep_best else None,
            logging_steps=settings.log_every_steps,
            logging_nan_inf_filter=False,  # a loss that is not a number must be seen
            report_to=list(settings.trackers) or "none",
            run_name=recipe.name,
            seed=recipe.seed,
            data_seed=recipe.seed,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=is_accelerated,
            use_cpu=not is_accelerated,
            disable_tqdm=True,
            log_level="error",
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error


def check_optimizer(recipe: Recipe, arguments: TrainingArguments, on_meta: nn.Module) -> None:
    """Build the optimiser for a parameter of its own and take a step, so that what it lacks shows before training.

    `on_meta` is the adapted model without weights. Raises ConfigError.
    """
    method, options = recipe.adapter.method, recipe.adapter.options
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        kind, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, on_meta)  # pyright: ignore[reportArgumentType]
        build = optimiser(method, options, weight_decay=arguments.weight_decay, rates=rates_by_module(recipe, on_meta))
        if build is not None:
            build(on_meta, kind, dict(settings))
        parameter = nn.Parameter(torch.zeros(2, 2, device=device))
        parameter.grad = torch.zeros_like(parameter)
        trial = kind([{"params": [parameter], "weight_decay": arguments.weight_decay}], **settings)
        getattr(trial, "train", lambda: None)()  # schedule-free ones refuse a step before it
        trial.step()
    except ConfigError:
        raise
    except Exception as error:  # of the optimiser's own package, whatever it is
        raise ConfigError(
            f"training.optimizer {recipe.training.optimizer} cannot be used here ({' '.join(str(error).split())[:190]})"
            ": install what it needs, or choose another one, such as adamw_torch"
        ) from error


def rates_by_module(recipe: Recipe, model: nn.Module) -> dict[str, float]:
    """The learning rates of the model's modules that have their own, by the modules' names in the base model."""
    parts = kind_of(recipe.kind).parts(model)
    return {parts[part]: rate for part, rate in recipe.training.rates_by_part.items() if part in parts}


def check_checkpointing(recipe: Recipe, on_meta: nn.Module) -> None:
    """Raise ConfigError for gradient checkpointing on a model that cannot do it."""
    if recipe.training.gradient_checkpointing and not getattr(
        base_of(on_meta), "supports_gradient_checkpointing", True
    ):
        raise ConfigError(
            f"training.gradient_checkpointing: {type(base_of(on_meta)).__name__} cannot do it; set it to false"
        )


def count_steps(arguments: TrainingArguments, rows: int) -> int:
    """The optimiser steps the Trainer will do on so many training rows."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    batches = math.ceil(math.ceil(rows / arguments.per_device_train_batch_size) / arguments.world_size)
    steps_per_epoch = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    return math.ceil(arguments.num_train_epochs * steps_per_epoch)


def _precision(recipe: Recipe) -> str:
    if recipe.training.precision != "auto":
        return recipe.training.precision
    if is_on_cpu(recipe.model):
        return "float32"
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(choose_dtype(recipe.model.dtype), "float32")
