"""Writing what a run has learned into a folder that loads without the run."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from moslora.adapter.methods import METHODS
from moslora.adapter.part_layers import PROJECTOR
from moslora.adapter.preparing import save_trained
from moslora.adapter.projector import FILE as PROJECTOR_FILE
from moslora.adapter.projector import save_projector
from moslora.adapter.twin import base_of
from moslora.files import new_folder
from moslora.runs.folder import RunFolder
from moslora.runs.groups import Recipe
from moslora.runs.kinds import kind_of
from moslora.runs.origin import Reached, write_origin
from moslora.runs.steps import RunPlan


def save_learned(
    recipe: Recipe,
    plan: RunPlan,
    model: nn.Module,
    place: RunFolder,
    *,
    start: Mapping[str, torch.Tensor] | None,
    reached: Reached | None = None,
) -> Path:
    """Write the adapter, the model of `full`, or a projector into its new folder in `place`, which is returned.

    `start` is what `starting_tensors` gave; `reached` says at which step an unfinished run is. Raises OutputError.
    """
    folder = learned_folder(recipe, plan, place)
    with new_folder(folder) as staged:
        if plan.is_projector_only:
            save_projector(model, kind_of(recipe.kind).parts(model)[PROJECTOR], staged / PROJECTOR_FILE)
        else:
            save_trained(model, staged, method=recipe.adapter.method, start=start)
        plan.processor.save_pretrained(str(staged))
        write_origin(
            staged,
            prompt=recipe.asked_with,
            kind=recipe.kind,
            base=getattr(base_of(model), "path", None),
            system=recipe.data.asked_system,
            reached=reached,
        )
    return folder


def learned_folder(recipe: Recipe, plan: RunPlan, place: RunFolder) -> Path:
    """Where the weights of a run belong in its folder."""
    if plan.is_projector_only:
        return place.projector
    return place.model if METHODS[recipe.adapter.method].config_class is None else place.adapter
