"""How far judges agree beyond chance: Krippendorff's alpha, with an interval over pairs.

    alpha = 1 - observed disagreement / expected disagreement

The observed one is that of two judges on the same pair, the expected one that of any two answers (Krippendorff 2019,
chapter 12). Between answers c and k it is 1 on the nominal scale, on the ordinal one the square of how many answers lie
from c to k, those of c and k by half. Where nearly all answers are alike, ties above all, alpha is near 0 although
judges agree: read it beside the share of answers that are alike.
"""

from typing import Literal

import numpy as np

from moslora.judging.resampling import DRAWS, SEED, Share, interval

Scale = Literal["nominal", "ordinal"]


def alpha(
    values_JP: np.ndarray,
    scale: Scale,
    *,
    unit_of_pair: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
) -> Share | None:
    """Krippendorff's alpha of judges × pairs (NaN where nothing was answered), with its interval over units of pairs.

    None where no pair has two judges, or where all answers are alike, so that there is nothing to disagree about.
    """
    answers = np.unique(values_JP[~np.isnan(values_JP)])
    counts_PC = np.array([(values_JP == answer).sum(axis=0) for answer in answers]).T.astype(float)
    judges_P = counts_PC.sum(axis=1)
    counts_PC = np.where(judges_P[:, None] > 1, counts_PC, 0)
    own_PCC = counts_PC[:, :, None] * (counts_PC[:, None, :] - np.eye(len(answers)))
    shared_PCC = own_PCC / np.maximum(1, judges_P - 1)[:, None, None]
    found = float(_alphas(shared_PCC.sum(axis=0)[None], scale)[0])
    if np.isnan(found):
        return None
    unit_P = np.arange(len(counts_PC)) if unit_of_pair is None else unit_of_pair
    units = int(unit_P.max()) + 1
    if units < 2:
        return Share(found)
    drawn_BU = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), draws)
    drawn = _alphas(np.tensordot(drawn_BU[:, unit_P].astype(float), shared_PCC, axes=1), scale)
    low, high = interval(drawn[~np.isnan(drawn)], fewest=units)
    return Share(found, min(float(low), found), max(float(high), found))


def share_alike(values_JP: np.ndarray) -> float | None:
    """How often two judges gave the same answer to a pair, of judges × pairs; None where no pair has two judges."""
    answers = np.unique(values_JP[~np.isnan(values_JP)])
    counts_CP = np.array([(values_JP == answer).sum(axis=0) for answer in answers], dtype=float)
    judges_P = counts_CP.sum(axis=0)
    twos = float((judges_P * (judges_P - 1)).sum())
    return float((counts_CP * (counts_CP - 1)).sum()) / twos if twos else None


def _alphas(coincidences_BCC: np.ndarray, scale: Scale) -> np.ndarray:
    """Alpha of each matrix of coinciding answers; NaN where all are alike."""
    totals_BC = coincidences_BCC.sum(axis=2)
    if scale == "nominal":
        apart_BCC = np.broadcast_to(1 - np.eye(totals_BC.shape[1]), coincidences_BCC.shape)
    else:
        middle_BC = totals_BC.cumsum(axis=1) - totals_BC / 2
        apart_BCC = (middle_BC[:, :, None] - middle_BC[:, None, :]) ** 2
    observed_B = (coincidences_BCC * apart_BCC).sum(axis=(1, 2))
    expected_B = (totals_BC[:, :, None] * totals_BC[:, None, :] * apart_BCC).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return 1 - (totals_BC.sum(axis=1) - 1) * observed_B / expected_B
