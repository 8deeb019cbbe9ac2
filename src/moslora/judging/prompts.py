"""Prompts of answers, from a CSV file with the columns name, prompt and perhaps subject."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from moslora.errors import DataError

PROMPTS = "prompts.csv"  # in a folder of `moslora generate`
HEADER = b"name,prompt"

Told = dict[str, tuple[str, str | None]]  # prompt and subject by name


def read_prompts(path: Path, names: Sequence[str]) -> Told:
    """Prompt and subject of each name; there may be others. Raises DataError for names without one, or with two."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the prompts {path} ({error}); give a CSV file with name and prompt") from error
    if not rows or not {"name", "prompt"} <= rows[0].keys():
        raise DataError(f"{path} has no columns name and prompt; write them in its first line (subject may follow)")
    twice = next((name for name, lines in Counter(row["name"] for row in rows).items() if lines > 1), None)
    if twice is not None:
        raise DataError(f"{path} names '{twice}' twice; leave one of the lines")
    told = {row["name"]: ((row["prompt"] or "").strip(), row.get("subject") or None) for row in rows}
    missing = [name for name in names if name not in told]
    if missing:
        raise DataError(
            f"{path} has no prompt for {len(missing)} of {len(names)} names, first '{missing[0]}'; add what is missing"
        )
    return told


def prompts_beside(found: Mapping[str, Mapping[str, Path]], names: Sequence[str]) -> Told:
    """The prompts that `moslora generate` wrote beside its texts. Raises DataError if the methods had others."""
    firsts = [next(iter(answers.items())) for answers in found.values()]
    beside = {path.parents[name.count("/") + 1] / PROMPTS for name, path in firsts}
    files = sorted(path for path in beside if path.is_file() and path.read_bytes().startswith(HEADER))
    told = [read_prompts(path, names) for path in files]
    for path, own in zip(files, told, strict=True):
        other = next((name for name in names if own[name] != told[0][name]), None)
        if other is not None:
            raise DataError(f"{files[0]} and {path} have different prompts for '{other}'; answer the same with each")
    return told[0] if told else {}
