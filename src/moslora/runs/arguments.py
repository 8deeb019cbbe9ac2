"""A recipe's training settings in transformers' terms."""

import math
import os
from importlib import util
from pathlib import Path

import torch
from transformers import TrainingArguments

from moslora.errors import ConfigError, MissingDependencyError
from moslora.runs.abilities import check_trainable, is_on_cpu
from moslora.runs.models import choose_dtype
from moslora.runs.recipe import Recipe


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
