"""The pairs that judges compared, with what they saw and how they answered, most disputed first."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from moslora.judging.analysis import PairRecord
from moslora.judging.judgements import read_answer
from moslora.reports.parts import Fold, JudgedPair, JudgedPairs, Part, Shown, Votes
from moslora.reports.reading import Judged

OPEN, MOST = 12, 60  # pairs shown at once, and in all
SIDE = 320  # pixels of a picture's longer side: twice what it is shown at
LONGEST_TEXT = 2000


def pairs_of(study: Judged, records: Sequence[PairRecord]) -> list[Part]:
    """The pairs in the order of their first record; those after the first dozen folded, of many the rest left out."""
    by_pair: dict[tuple[str, str, str], list[PairRecord]] = {}
    for one in records:
        by_pair.setdefault((one.pair, one.first, one.second), []).append(one)
    order = {question: place for place, question in enumerate(study.record.questions)}
    shown = [
        _pair(study.folder, sorted(found, key=lambda one: order[one.question])) for found in [*by_pair.values()][:MOST]
    ]
    left_out = len(by_pair) - len(shown)
    caption = "Bars: judges who preferred the left answer of the two here, neither, the right one."
    parts: list[Part] = [JudgedPairs(caption, shown[:OPEN])] if shown else []
    if len(shown) > OPEN:
        rest = f"{len(shown) - OPEN} less disputed" + (f" ({left_out} more are left out)" if left_out else "")
        parts.append(Fold(rest, [JudgedPairs("", shown[OPEN:])]))
    return parts


def _pair(folder: Path, found: Sequence[PairRecord]) -> JudgedPair:
    one = found[0]
    facts = [one.pair] if one.prompt and one.prompt != one.pair else []
    return JudgedPair(
        title=one.prompt or one.pair,
        facts=", ".join([*([one.subject] if one.subject else []), *facts]),
        answers=(_shown(folder, one.pair, one.first), _shown(folder, one.pair, one.second)),
        votes=[Votes(record.question, record.wins, record.ties, record.losses) for record in found],
    )


def _shown(folder: Path, pair: str, method: str) -> Shown:
    body = read_answer(folder, pair, method=method)
    if isinstance(body, str):
        return Shown(method, text=body if len(body) <= LONGEST_TEXT else f"{body[:LONGEST_TEXT]}…")
    image = Image.open(io.BytesIO(body)).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    uri = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Shown(method, uri, image.width, image.height)
