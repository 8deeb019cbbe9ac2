"""The measures of drawn pictures, each with its values, its rule and what it stands between."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from moslora.errors import DataError
from moslora.evaluation import similarity
from moslora.evaluation.answers import Answer
from moslora.evaluation.features import Features
from moslora.painting.requests import Picture, Request


@dataclass(frozen=True)
class Measure:
    """One value a picture, higher is better, and how it was made; a picture that was withheld is worth 0.

    `rule` names what was computed, the model and the preprocessing; `span` is what the mean stands between, if known.
    """

    name: str
    rule: str
    values: np.ndarray
    answers: list[Answer]
    span: similarity.Span | None = None

    @property
    def mean(self) -> float:
        """The mean of the values as they are; that of the answers' credits is of values cut to 0 to 1."""
        return float(self.values.mean())


def measure_subject(
    drawn: Sequence[Picture],
    base_drawn: Sequence[Picture],
    *,
    features: Features,
    photos: Sequence[Image.Image],
    held_out: Sequence[Image.Image] = (),
) -> list[Measure]:
    """Likeness to the subject's training `photos`, between base and `held_out` photos, and the share of no copies.

    `base_drawn` holds the same requests without an adapter. Without held-out photos the training photos are held
    against each other. Raises DataError for other requests and for fewer than two photos where none are held out.
    """
    _check_same_requests(drawn, base_drawn)
    shown_ND, base_ND = (features.pictures([one.image for one in pictures]) for pictures in (drawn, base_drawn))
    photos_MD = features.pictures(photos)
    held_HD = features.pictures(held_out) if held_out else None
    floor = similarity.subject_similarity(base_ND, photos_MD)
    if held_HD is None:
        ceiling, others = (
            similarity.similarity_of_photos(photos_MD),
            f"the {len(photos)} photos held against each other",
        )
    else:
        ceiling = similarity.subject_similarity(held_HD, photos_MD)
        others = f"{len(held_out)} held-out photos"
    likeness = similarity.subject_similarity(shown_ND, photos_MD)
    threshold = similarity.copy_threshold(photos_MD, held_HD)
    is_own = ~similarity.copies(shown_ND, photos_MD, threshold=threshold)
    to_photos = f"{similarity.SUBJECT} (n = {len(photos)})"
    own = f"{similarity.ORIGINALITY} (cosine above {threshold:.3f}, from {others})"
    span = similarity.Span(float(floor.mean()), float(ceiling.mean()))
    return [
        _measure("subject-similarity", to_photos, likeness, drawn, features=features, span=span),
        _measure("originality", own, is_own, drawn, features=features, step=1.0),
    ]


def measure_prompts(drawn: Sequence[Picture], plain: Sequence[str], *, features: Features) -> Measure:
    """Likeness to the prompts, of which `plain` holds the text without identifier, one a picture.

    Raises ConfigError for features without texts.
    """
    texts_ND = features.texts(plain)
    values = similarity.prompt_similarity(features.pictures([one.image for one in drawn]), texts_ND)
    return _measure("prompt-similarity", similarity.PROMPT, values, drawn, features=features)


def measure_drift(drawn: Sequence[Picture], base_drawn: Sequence[Picture], *, features: Features) -> Measure:
    """Likeness to what the base draws, of prompts that have nothing to do with the subject: 1 is no drift.

    Raises DataError for other requests.
    """
    _check_same_requests(drawn, base_drawn)
    shown_ND, base_ND = (features.pictures([one.image for one in pictures]) for pictures in (drawn, base_drawn))
    values = 1 - similarity.drift(shown_ND, base_ND)
    return _measure("likeness-to-base", similarity.LIKENESS, values, drawn, features=features)


def _measure(
    name: str,
    rule: str,
    values: np.ndarray,
    drawn: Sequence[Picture],
    *,
    features: Features,
    step: float = similarity.STEP,
    span: similarity.Span | None = None,
) -> Measure:
    withheld = np.array([one.is_withheld for one in drawn])
    values = np.where(withheld, 0.0, values)
    answers = similarity.measured(
        values,
        [one.request.prompt for one in drawn],
        [one.request.seed for one in drawn],
        step=step,
        is_read=~withheld,
    )
    return Measure(name, f"{rule}; {features.name}", values, answers, span)


def _check_same_requests(drawn: Sequence[Picture], base_drawn: Sequence[Picture]) -> None:
    asked, asked_of_base = _requests(drawn), _requests(base_drawn)
    if not asked or asked != asked_of_base:
        raise DataError(
            f"{len(asked)} pictures and {len(asked_of_base)} of the base were not drawn from the same requests; draw"
            " the same"
            " prompts, seeds and settings with and without the adapter"
        )


def _requests(drawn: Sequence[Picture]) -> list[Request]:
    return [one.request for one in drawn]
