"""What is to be known of the material before anybody judges it: what is no part of it, and what tells methods apart."""

from collections.abc import Iterable
from pathlib import Path

from moslora.data.images import check_image
from moslora.judging.judgements import opened

_RECORDS = (".csv", ".json", ".jsonl")  # beside answers, never answers


def unused(folder: Path, taken: Iterable[Path], *, read: str) -> list[str]:
    """A line on the files of a folder that are not among those taken, if there are any; hidden ones do not count."""
    known = set(taken)
    left = sorted(path for path in folder.rglob("*") if path not in known and _could_be_meant(path, folder))
    if not left:
        return []
    files = "1 file is" if len(left) == 1 else f"{len(left)} files are"
    return [f"{folder}: {files} not used, the first {left[0].relative_to(folder)} (read are {read})"]


def larger_throughout(methods: Iterable[str], answers: Iterable[Iterable[Path]], *, most: int) -> list[str]:
    """A line on each method all of whose pictures are larger than those of the one with the smallest.

    `answers` are the pictures of one name, in the order of the methods; `most` is the longest side that is shown.
    """
    found = [[check_image(str(path), place="answers") for path in paths] for paths in answers]
    areas = [[one.width * one.height for one in row] for row in found]
    named = list(methods)
    small = min(range(len(named)), key=lambda method: sum(row[method] for row in areas))
    lines = []
    for method, name in enumerate(named):
        if not all(row[method] > row[small] for row in areas):
            continue
        large, less = found[0][method], found[0][small]
        share = min(1.0, most / max(less.width, less.height))
        lines.append(
            f"{name}'s pictures are larger ({large.width} x {large.height}, {named[small]}'s {less.width} x"
            f" {less.height}); all are shown at {round(share * less.width)} x {round(share * less.height)}, and"
            " sharpness may tell them apart"
        )
    return lines


def same_answers(study: Path) -> list[str]:
    """A line on the pairs of a study in which both answers are the same, if there are any."""
    with opened(study) as database:
        (number,) = database.execute(
            "SELECT COUNT(*) FROM answer AS one JOIN answer AS other ON one.item = other.item"
            " AND one.method < other.method AND one.body = other.body"
        ).fetchone()
    pairs = "1 pair has" if number == 1 else f"{number} pairs have"
    return [f"{pairs} the same answer from both"] if number else []


def _could_be_meant(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    return path.is_file() and path.suffix.lower() not in _RECORDS and not any(part.startswith(".") for part in parts)
