"""Prior preservation: pictures of the subject's class, drawn by the untrained model and learned beside the subject.

(Ruiz et al. 2023, DreamBooth, section 3.3.)
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from moslora.adapter.twin import base_of
from moslora.data.photos import PROMPT, Photo, read_photos
from moslora.launch import is_first
from moslora.painting.drawing import draw
from moslora.painting.png import write_picture
from moslora.painting.requests import Request
from moslora.runs.kinds.subject_drawing import drawing_bar, without_adapter
from moslora.runs.kinds.subject_material import Shapes, shots_of
from moslora.runs.subject_settings import SubjectRecipe
from moslora.training.shots import Shot

FOLDER = "class_pictures"


def class_shots(
    recipe: SubjectRecipe, model: nn.Module, tokenizers: Any, *, folder: Path, progress: bool
) -> list[Shot]:
    """The class's pictures in `folder`, as training sees them; those that are lacking are drawn first and kept.

    Of several processes the first one draws. Raises DataError for a picture that cannot be used.
    """
    data = recipe.data
    if data.class_prompt is None:
        return []
    if is_first():
        _draw_lacking(recipe, model, folder=folder, progress=progress)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    photos = read_photos(folder, captions=PROMPT, prompt=data.class_prompt)[: data.class_pictures]
    return shots_of(photos, Shapes(recipe.model, data), tokenizers, recipe.model)


def _draw_lacking(recipe: SubjectRecipe, model: nn.Module, *, folder: Path, progress: bool) -> None:
    data, settings = recipe.data, recipe.evaluation
    folder.mkdir(parents=True, exist_ok=True)
    there = _count(folder, data.class_prompt)
    side = Shapes(recipe.model, data).resolution
    how: dict[str, Any] = {"steps": settings.steps, "guidance": settings.guidance, "width": side, "height": side}
    requests = [Request(prompt=str(data.class_prompt), seed=seed, **how) for seed in range(there, data.class_pictures)]
    if not requests:
        return
    with without_adapter(model):
        pipe = base_of(model).pipeline()
        with drawing_bar(progress=progress) as advance:
            for drawn in draw(pipe, requests, batch_size=settings.batch_size, progress=advance):
                write_picture(folder, drawn.image, request=drawn.request)


def _count(folder: Path, prompt: str | None) -> int:
    if not any(folder.iterdir()):
        return 0
    photos: list[Photo] = read_photos(folder, captions=PROMPT, prompt=prompt)
    return len(photos)
