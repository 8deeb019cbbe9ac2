"""What is measured of drawn pictures, each a task: a unit is a prompt with the seed of its noise, its credit 0 to 1.

Higher is always better. A measure stands between what the untrained model reaches ("before") and what real pictures
reach: a photo held against the others, or a scene as its artist drew it, through the autoencoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from moslora.data.images import open_image
from moslora.data.photos import Photo
from moslora.errors import ConfigError
from moslora.evaluation import pictures as measures
from moslora.evaluation.features import Features, open_features
from moslora.evaluation.similarity import SUBJECT, measured, similarity_of_photos
from moslora.painting.prompts import Prompt, parse_prompts, read_prompts, shipped_names, shipped_prompts
from moslora.painting.requests import Picture, Request, requests_for
from moslora.runs.kinds.subject_emoji import CHOICES, RULES, emoji_prompts, read_scenes
from moslora.runs.kinds.subject_material import photos_from
from moslora.runs.subject_settings import EMOJI, OF_SCENES, SubjectEvaluationSettings

BEFORE, AFTER = "before", "after"
UNRELATED = "unrelated"  # a list of prompts that have nothing to do with any subject
LIKENESS, PROMPTS, SUBJECTS, ORIGINALITY = (
    "likeness-to-base",
    "prompt-similarity",
    "subject-similarity",
    "originality",
)


@dataclass(frozen=True)
class Unit:
    """One picture to draw and to measure; `scene` is what it is to show, where rules can read that."""

    request: Request
    prompt: Prompt
    scene: Any = None


@dataclass(frozen=True)
class Task:
    """A measure by name, with what says how it is made."""

    name: str
    settings: SubjectEvaluationSettings

    @property
    def needs_base(self) -> bool:
        """Whether the pictures of the untrained model belong to it."""
        return self.name in (LIKENESS, SUBJECTS, ORIGINALITY)

    @property
    def has_real(self) -> bool:
        """Whether it is known what real pictures reach."""
        return self.name == SUBJECTS or self.name in OF_SCENES


class Measured(NamedTuple):
    """The answers, one a unit, and the rule that gave them their credits."""

    answers: list[Any]
    rule: str


def units_of(task: Task) -> list[Unit]:
    """What is drawn for a measure: each prompt with each seed. Raises DataError or ConfigError."""
    settings = task.settings
    prompts, scenes = _prompts(UNRELATED if task.name == LIKENESS else settings.prompts, settings)
    if task.name in OF_SCENES and not scenes:
        raise ConfigError(f"{task.name} reads scenes of emoji: it needs evaluation.prompts: {EMOJI}NAME")
    requests = requests_of(prompts, settings, seeds=settings.seeds)
    return [Unit(request, prompts[request.number], scenes[request.number] if scenes else None) for request in requests]


def requests_of(prompts: Sequence[Prompt], settings: SubjectEvaluationSettings, *, seeds: int) -> list[Request]:
    """Each prompt with so many seeds, drawn as the settings say."""
    how: dict[str, Any] = {"steps": settings.steps, "guidance": settings.guidance}
    how |= {"negative_prompt": settings.negative_prompt, "width": settings.resolution, "height": settings.resolution}
    return requests_for([one.text for one in prompts], range(seeds), **how)


def measure(task: Task, units: Sequence[Unit], drawn: Sequence[Picture], base: Sequence[Picture]) -> Measured:
    """The values of drawn pictures, in the order of their units; `base` holds the untrained model's, where needed."""
    if task.name in OF_SCENES:
        return scene_values(task, units, [one.image for one in drawn])
    features = features_of(task.settings)
    if task.name == LIKENESS:
        found = measures.measure_drift(drawn, base, features=features)
    elif task.name == PROMPTS:
        found = measures.measure_prompts(drawn, [unit.prompt.plain for unit in units], features=features)
    else:
        photos = [open_image(one.picture, place=one.name) for one in photos_of(task.settings)]
        both = measures.measure_subject(drawn, base, features=features, photos=photos)
        found = next(one for one in both if one.name == task.name)
    return Measured(found.answers, found.rule)


def scene_values(task: Task, units: Sequence[Unit], images: Sequence[Image.Image]) -> Measured:
    """Whether rules read in each picture what its scene says."""
    features = features_of(task.settings) if task.name == "identity-by-features" else None
    values = read_scenes(task.name, [unit.scene for unit in units], images, features=features)
    rule = RULES[task.name] + (f"; {features.name}" if features else "")
    answers = _answers(values, units, step=1.0)
    return Measured([replace(answer, options=CHOICES[task.name]) for answer in answers], rule)


def real_values(task: Task, units: Sequence[Unit]) -> Measured:
    """What the subject's own photos reach, each held against the others."""
    features, photos = features_of(task.settings), photos_of(task.settings)
    vectors = features.pictures([open_image(one.picture, place=one.name) for one in photos])
    values = similarity_of_photos(vectors)
    rule = f"{SUBJECT} (each of {len(photos)} photos against the others); {features.name}"
    return Measured(measured(values, [photo.name for photo in photos], [0] * len(photos)), rule)


def photos_of(settings: SubjectEvaluationSettings) -> list[Photo]:
    """The subject's pictures that drawn ones are compared with. Raises ConfigError where none are named."""
    if settings.photos is None:
        raise ConfigError("evaluation.photos is missing: name the folder of the subject's pictures")
    sources = [settings.photos] if isinstance(settings.photos, str) else settings.photos
    return [photo for source in sources for photo in photos_from(source, captions="prompt", prompt="-")]


def features_of(settings: SubjectEvaluationSettings) -> Features:
    """The model that pictures are compared by, loaded once."""
    return _opened(settings.features)


@lru_cache(maxsize=2)
def _opened(source: str) -> Features:
    return open_features(source)


def _prompts(source: Any, settings: SubjectEvaluationSettings) -> tuple[list[Prompt], list[Any]]:
    if source is None:
        raise ConfigError(
            "evaluation.prompts is missing: what is to be drawn comes with a run, so name the run's folder"
        )
    named = {"subject": settings.subject, "plain": settings.class_name}
    if isinstance(source, list):
        found = parse_prompts("\n".join(source), place="evaluation.prompts", **named), []
    elif source.startswith(EMOJI):
        found = emoji_prompts(source.removeprefix(EMOJI))
    elif source in shipped_names():
        found = shipped_prompts(source, **named), []
    else:
        found = read_prompts(Path(source).expanduser(), **named), []
    return found[0][: settings.limit], found[1][: settings.limit]


def _answers(values: Sequence[bool], units: Sequence[Unit], *, step: float) -> list[Any]:
    prompts, seeds = [unit.prompt.text for unit in units], [unit.request.seed for unit in units]
    return measured(np.asarray(values, dtype=float), prompts, seeds, step=step)
