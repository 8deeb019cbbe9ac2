"""What a run and a measurement of its cost have in common: a model prepared as its recipe says, and trained."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainingArguments, set_seed

from moslora.adapter.part_gradients import CheckGradients
from moslora.adapter.part_layers import PROJECTOR
from moslora.adapter.parts import FROZEN, projector_choice
from moslora.adapter.preparing import callbacks, optimiser, prepare
from moslora.adapter.projector import projector_of, train_in_float32, train_only
from moslora.records import CoverageRecord
from moslora.runs.arguments import rates_by_module
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.material import Material
from moslora.runs.models import choose_dtype
from moslora.training.averaging import Average
from moslora.training.trainer import TrainingResult, train

LOOKED_AT_STEPS = 4  # at least, for the gradients of each part
LOG_OF_A_MILLION = math.log(1e6)


@dataclass(frozen=True)
class RunPlan:
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


def prepared(recipe: Recipe, plan: RunPlan, model: PreTrainedModel) -> nn.Module:
    """The loaded model with the recipe's adapter drawn from its seed, changed in place."""
    set_seed(recipe.seed)
    if recipe.model.quantize != "none":
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # the Trainer switches it on
    if recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
    kind, adapted = kind_of(recipe.kind), model
    projector = kind.parts(model).get(PROJECTOR, "")
    if plan.is_projector_only:
        train_only(model, projector)
    else:
        options: dict[str, Any] = {"total_steps": plan.total_steps, "task_type": kind.head.task_type}
        adapted = prepare(model, recipe.adapter.method, plan.options, **options)
    if projector_choice(recipe.adapter.options) != FROZEN:
        train_in_float32(adapted, projector)
    return adapted


def gradient_check(recipe: Recipe, plan: RunPlan, parts: Mapping[str, str]) -> CheckGradients | None:
    """What proves that training reaches each part of a model made of parts; None for another.

    It looks at so many steps that, where not every row uses every part, all but one in a million runs have met one
    that does; batches of rows alike are as one row.
    """
    if not parts:
        return None
    rows = plan.material.complete_share * (1 if plan.material.alike else recipe.training.batch_size)
    needed = math.ceil(LOG_OF_A_MILLION / rows) if rows else LOOKED_AT_STEPS
    return CheckGradients(parts, steps=min(plan.total_steps, max(LOOKED_AT_STEPS, needed)))


def as_loaded(recipe: Recipe, model: nn.Module) -> nn.Module:
    """A trained model, changed in place to what its saved folder loads as: the projector in the model's own dtype."""
    if projector_choice(recipe.adapter.options) != FROZEN and recipe.model.quantize == "none":
        projector_of(model, kind_of(recipe.kind).parts(model)[PROJECTOR]).to(choose_dtype(recipe.model.dtype))
    return model


def trained(
    recipe: Recipe,
    plan: RunPlan,
    model: nn.Module,
    *,
    place: RunFolder,
    validation: Sequence[Any] | None = None,
    also: Sequence[TrainerCallback] = (),
    resume: bool = False,
    progress: bool = False,
) -> TrainingResult:
    """Train a prepared model in place on the plan's rows. `also` are callbacks beside the method's own."""
    method, settings = recipe.adapter.method, recipe.training
    rates = rates_by_module(recipe, model)
    decay = settings.average_decay
    given: dict[str, Any] = {"arguments": plan.arguments, "progress": progress}
    rows = [*plan.material.rows, *(validation or ())]
    with kind_of(recipe.kind).batches(recipe, model, plan.processor, rows, **given) as collate:
        return train(
            model,
            plan.material.rows,
            groups=plan.material.groups,
            alike=plan.material.alike,
            visited_steps=plan.total_steps if plan.material.visits else None,
            collate=collate,
            validation=validation,
            metrics_path=place.metrics_path,
            make_optimizer=optimiser(method, plan.options, weight_decay=settings.weight_decay, rates=rates),
            callbacks=[*callbacks(model, method), *also],
            average=Average(model, decay=decay) if decay is not None else None,
            resume=resume,
            **given,
        )
