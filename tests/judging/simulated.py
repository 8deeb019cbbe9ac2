"""Studies with judgements that were drawn or written down, without a server."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from moslora.judging.judgements import Judgement, StudyRecord

OUTCOMES = {"w": "first", "t": "tie", "l": "second"}
QUESTION, WHEN = "prompt consistency", datetime(2026, 11, 1, tzinfo=UTC)


def judgement(judge="ann", pair="p0", outcome="tie", **changes) -> Judgement:
    told = {"subject": None, "prompt": pair, "question": QUESTION, "first": "a", "second": "b", "left": "a"}
    told |= {"check": None, "seconds": 8.0, "answered": WHEN} | changes
    return Judgement(judge=judge, pair=pair, outcome=outcome, **told)


def study(judgements: Sequence[Judgement], *, pairs=None, judges_planned=None, **changes) -> StudyRecord:
    """A closed study of these judgements, planned as it turned out unless said otherwise."""
    judges = tuple(dict.fromkeys(one.judge for one in judgements))
    told = {
        "methods": tuple(dict.fromkeys(name for one in judgements for name in (one.first, one.second))),
        "questions": tuple(dict.fromkeys(one.question for one in judgements)),
        "pairs_planned": len({(one.pair, one.first, one.second) for one in judgements}) if pairs is None else pairs,
        "judges_planned": len(judges) if judges_planned is None else judges_planned,
        "judges": judges,
        "subjects": tuple(sorted({one.subject for one in judgements if one.subject})),
        "is_closed": True,
    }
    return StudyRecord(judgements=tuple(judgements), **(told | changes))


def written(rows: Mapping[str, str], **changes) -> list[Judgement]:
    """Judgements from a string for each judge: w, t or l for each pair, "." where nothing was answered.

    The sides alternate: the first method stands left in pairs of even number.
    """
    return [
        judgement(judge, f"p{number}", OUTCOMES[letter], **({"left": "ab"[number % 2]} | changes))
        for judge, letters in rows.items()
        for number, letter in enumerate(letters)
        if letter != "."
    ]


def drawn(judges: int, pairs: int, *, gain: float, seed: int, subjects: Sequence[str | None] = (None,), **changes):
    """Judgements with effects of judges and pairs on a latent scale; `gain` shifts it towards the first method."""
    draw = np.random.default_rng(seed)
    latent = gain + 0.55 * draw.normal(size=(1, pairs)) + 0.22 * draw.normal(size=(judges, 1))
    latent = latent + 0.8 * draw.normal(size=(judges, pairs))
    letters = np.where(latent > 0.67, "w", np.where(latent < -0.67, "l", "t"))
    found = written({f"judge {number}": "".join(row) for number, row in enumerate(letters)}, **changes)
    return [
        judgement(**(vars(one) | {"subject": subjects[int(one.pair[1:]) % len(subjects)]} | changes)) for one in found
    ]
