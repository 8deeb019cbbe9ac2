"""The tables that VLMEvalKit publishes: one question a row, with its picture in base64 or on disk."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from moslora.data.files import Row, read_rows
from moslora.data.images import Picture, decoded
from moslora.data.references import picture
from moslora.errors import DataError

_LONGEST_INDEX = 64  # a shorter picture is the index of the row that has it
_NO_VALUE = ("", "nan")


def read_table(path: Path, *, columns: Sequence[str], limit: int | None = None) -> list[Row]:
    """The rows of a table with these columns. Raises DataError naming the file and the columns it lacks."""
    rows = read_rows(path)
    missing = [name for name in columns if name not in rows[0]]
    if missing:
        raise DataError(f"{path}: no column '{missing[0]}' (it has: {', '.join(rows[0])}); give the task's own table")
    return rows[:limit]


def cell(row: Mapping[str, Any], name: str) -> str:
    """The text of a cell; empty for none, and for what pandas writes in its place."""
    value = row.get(name)
    text = "" if value is None else str(value)
    return "" if text.strip().lower() in _NO_VALUE else text


def cells(text: str, *, place: str) -> list[str]:
    """The texts of a cell that holds one, or a list of them as Python writes it."""
    if not text.startswith("["):
        return [text] if text else []
    try:
        values = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise DataError(f"{place}: '{text[:40]}…' is not a list ({error}); correct the table") from error
    return [str(value) for value in values]


def options_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The options that a row has, by letter."""
    return {letter: cell(row, letter) for letter in ascii_uppercase if cell(row, letter)}


def without_pictures(row: Mapping[str, Any]) -> Row:
    """The row's columns that a file of predictions repeats."""
    return {name: value for name, value in row.items() if name != "image"}


class Pictures:
    """The pictures of a table's rows; those that several rows share are held once."""

    def __init__(self, rows: Sequence[Row], *, source: str, image_folder: Path | None) -> None:
        self._rows = {cell(row, "index"): row for row in rows}
        self._source, self._folder = source, image_folder
        self._decoded: dict[str, list[Picture]] = {}

    def of(self, row: Mapping[str, Any]) -> list[Picture]:
        """The pictures of a row: from `image`, else from `image_path` in the image folder.

        Raises DataError naming the row for none, for one that is not base64, and for a row it refers to in vain.
        """
        index = cell(row, "index")
        if index not in self._decoded:
            self._decoded[index] = self._read(row, place=f"{self._source}: index {index}")
        return self._decoded[index]

    def _read(self, row: Mapping[str, Any], *, place: str) -> list[Picture]:
        value = row.get("image")
        if isinstance(value, (bytes, Mapping)):
            return [picture(value, folder=self._folder, place=place)]
        text = cell(row, "image")
        if not text:
            names = cells(cell(row, "image_path"), place=place)
            if not names:
                raise DataError(f"{place}: no picture in 'image' or 'image_path'; give the table that has them")
            return [picture(name, folder=self._folder, place=place) for name in names]
        if len(text) <= _LONGEST_INDEX and not text.startswith("["):
            return self._shared(text, place=place)
        return [decoded(one, place=place) for one in cells(text, place=place)]

    def _shared(self, index: str, *, place: str) -> list[Picture]:
        owner = self._rows.get(index)
        if owner is None or len(str(owner.get("image") or "")) <= _LONGEST_INDEX:
            raise DataError(f"{place}: the picture is that of index '{index}', which has none; give the whole table")
        return self.of(owner)
