"""How like drawn pictures are to photos, prompts and other pictures: functions from unit vectors to a value a picture.

N pictures, M photos of the subject, H held-out photos, D values a vector. Vectors have length 1, so that products are
cosines; see `moslora.evaluation.features`. A value says little by itself: a similarity to the photos stands between its
floor, what the base draws without an adapter, and its ceiling, what held-out photos of the subject reach. Next to it
stand drift and copies, since a model that only repeats its training photos is the most similar of all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moslora.errors import DataError
from moslora.evaluation.answers import Answer

STEP = 1e-3  # the least difference of two similarities that counts as one
PERCENTILE = 99.0  # of held-out photos, above which a picture is a copy
LEAST_SPAN = 1e-3  # between floor and ceiling

CUT = "cut to 0 to 1"
SUBJECT = f"mean cosine to the subject's photos, {CUT}"
PROMPT = f"cosine to the prompt without the identifier, {CUT}"
LIKENESS = f"cosine to the picture without the adapter, of the same prompt and noise (1 - drift), {CUT}"
ORIGINALITY = (
    f"0 for a copy, else 1; a copy is nearer to a photo of the subject than {PERCENTILE:g} % of other photos are"
)


class Nearest(NamedTuple):
    """Of each picture the photo that is most like it, and their cosine."""

    photo: np.ndarray
    cosine: np.ndarray


class Span(NamedTuple):
    """What a mean similarity stands between: the base without an adapter, and held-out photos of the subject."""

    floor: float
    ceiling: float

    def place(self, value: float) -> float:
        """Where a value stands: 0 at the floor, 1 at the ceiling, and beyond them where it lies beyond.

        Raises DataError unless the ceiling is above the floor by at least a thousandth.
        """
        if self.ceiling - self.floor < LEAST_SPAN:
            raise DataError(
                f"held-out photos are no more like the subject ({self.ceiling:.3f}) than what the base draws"
                f" ({self.floor:.3f}): these features do not tell the subject apart; use other ones"
            )
        return (value - self.floor) / (self.ceiling - self.floor)


def subject_similarity(pictures_ND: np.ndarray, photos_MD: np.ndarray) -> np.ndarray:
    """The mean cosine of each picture to the photos (N), -1 to 1."""
    return (pictures_ND @ photos_MD.T).mean(axis=1)


def similarity_of_photos(photos_MD: np.ndarray) -> np.ndarray:
    """The mean cosine of each photo to the others (M): a ceiling where none was held out.

    Raises DataError for fewer than two photos.
    """
    others_MM = _to_others(photos_MD)
    return np.nanmean(others_MM, axis=1)


def prompt_similarity(pictures_ND: np.ndarray, prompts_ND: np.ndarray) -> np.ndarray:
    """The cosine of each picture to its own prompt (N), -1 to 1."""
    return np.einsum("nd,nd->n", pictures_ND, prompts_ND)


def drift(with_ND: np.ndarray, without_ND: np.ndarray) -> np.ndarray:
    """The cosine distance (N), 0 to 2, of pictures with an adapter from those without, of equal prompts and noise."""
    return 1 - prompt_similarity(with_ND, without_ND)


def nearest_photo(pictures_ND: np.ndarray, photos_MD: np.ndarray) -> Nearest:
    """The photo that is most like each picture."""
    cosines_NM = pictures_ND @ photos_MD.T
    return Nearest(cosines_NM.argmax(axis=1), cosines_NM.max(axis=1))


def copy_threshold(
    photos_MD: np.ndarray, held_out_HD: np.ndarray | None = None, *, percentile: float = PERCENTILE
) -> float:
    """The cosine to its nearest photo above which a picture is a copy: that many per cent of held-out photos are below.

    Without held-out photos each photo is held against the others. With few photos it is about the most alike two of
    them: photos of one moment make it lenient. Raises DataError for fewer than two photos where none are held out.
    """
    if held_out_HD is not None and len(held_out_HD):
        return float(np.percentile(nearest_photo(held_out_HD, photos_MD).cosine, percentile))
    return float(np.percentile(np.nanmax(_to_others(photos_MD), axis=1), percentile))


def copies(pictures_ND: np.ndarray, photos_MD: np.ndarray, *, threshold: float) -> np.ndarray:
    """Whether each picture is more like a photo than the threshold (N)."""
    return nearest_photo(pictures_ND, photos_MD).cosine > threshold


def measured(
    values: Sequence[float] | np.ndarray,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    step: float = STEP,
    is_read: Sequence[bool] | np.ndarray | None = None,
) -> list[Answer]:
    """A value a picture as an answer with this credit, cut to 0 to 1; a unit is a prompt with a seed.

    Pictures of one prompt depend on each other, so prompts are groups wherever several have several. `step` is 1 for
    values of 0 and 1. Pictures for which `is_read` is False, which a safety checker withheld, are worth nothing.
    Raises DataError for values that are no numbers and for a prompt that has a seed twice.
    """
    values = np.asarray(values, dtype=float)
    read = [True] * len(values) if is_read is None else [bool(one) for one in is_read]
    places = list(zip(prompts, seeds, strict=True))
    if len(set(places)) < len(places):
        prompt, seed = next(place for place in places if places.count(place) > 1)
        raise DataError(f"'{prompt}' was drawn with seed {seed} twice; give each prompt different seeds")
    if not np.isfinite(values).all():
        prompt, seed = places[int((~np.isfinite(values)).argmax())]
        raise DataError(f"the value of '{prompt}' with seed {seed} is not a number; draw and measure it again")
    has_groups = 1 < len(set(prompts)) < len(places)
    answers = []
    for index, ((prompt, seed), value, known) in enumerate(zip(places, values, read, strict=True)):
        credit = float(np.clip(value, 0, 1)) if known else 0.0
        answers.append(
            Answer(
                index=index,
                expected=f"{prompt} · seed {seed}",
                predicted=f"{value:.6f}" if known else None,
                is_correct=credit == 1,
                credit=credit,
                step=step,
                group=prompt if has_groups else None,
                is_read=known,
            )
        )
    return answers


def _to_others(photos_MD: np.ndarray) -> np.ndarray:
    """The cosines of photos to each other, without those to themselves."""
    if len(photos_MD) < 2:
        raise DataError(
            f"the subject has {len(photos_MD)} photo and none held out; give a second one to compare it with"
        )
    cosines_MM = photos_MD @ photos_MD.T
    np.fill_diagonal(cosines_MM, np.nan)
    return cosines_MM
