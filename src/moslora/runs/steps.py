"""What a run and a measurement of its cost have in common: a model prepared as its recipe says, and trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from moslora.adapter.part_layers import PROJECTOR
from moslora.adapter.preparing import callbacks, optimiser, prepare
from moslora.adapter.projector import train_only
from moslora.records import CoverageRecord
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.material import Material
from moslora.training.trainer import TrainingResult, train


@dataclass(frozen=True)
class Plan:
    """What was read and checked before any weight is loaded; `options` are the adapter's, of the whole model.

    With `is_projector_only` nothing but the projector of a model with pictures is trained, without any adapter.
    """

    processor: Any
    material: Material
    arguments: TrainingArguments
    options: Mapping[str, Any]
    is_projector_only: bool
    total_steps: int
    coverage: CoverageRecord
    coverage_notes: list[str]
    needed_bytes: int


def prepared(recipe: Recipe, plan: Plan, model: PreTrainedModel) -> nn.Module:
    """The loaded model with the recipe's adapter drawn from its seed, changed in place."""
    set_seed(recipe.seed)
    if recipe.model.quantize != "none":
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the Trainer switches it on
    if recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
    kind = kind_of(recipe.kind)
    if plan.is_projector_only:
        train_only(model, kind.parts(model)[PROJECTOR])
        return model
    task_type = kind.head.task_type
    return prepare(model, recipe.adapter.method, plan.options, total_steps=plan.total_steps, task_type=task_type)


def trained(
    recipe: Recipe,
    plan: Plan,
    model: nn.Module,
    *,
    place: RunFolder,
    validation: Sequence[Any] | None = None,
    also: Sequence[TrainerCallback] = (),
    resume: bool = False,
    progress: bool = False,
) -> TrainingResult:
    """Train a prepared model in place on the plan's rows. `also` are callbacks beside the method's own."""
    method = recipe.adapter.method
    return train(
        model,
        plan.material.rows,
        groups=plan.material.groups,
        arguments=plan.arguments,
        collate=kind_of(recipe.kind).collator(model, plan.processor),
        validation=validation,
        metrics_path=place.metrics_path,
        make_optimizer=optimiser(method, plan.options, weight_decay=recipe.training.weight_decay),
        callbacks=[*callbacks(model, method), *also],
        resume=resume,
        progress=progress,
    )
