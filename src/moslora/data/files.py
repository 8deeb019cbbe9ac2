"""Rows of one local file: JSON lists, JSON lines, CSV, TSV, Parquet and text, each also gzipped. Nothing is unpickled.

Readers give each row with the line it starts at, or the error that it is; None where lines mean nothing.
"""

import csv
import gzip
import io
import json
import zlib
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

from moslora.data.reading import Reading
from moslora.errors import DataError

Row = dict[str, Any]
Found = tuple[int | None, Row | DataError]

TEXT = ".txt"
FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", TEXT)
FORMATS_TEXT = f"{', '.join(FORMATS)}, each also with .gz"

UNNAMED = "(unnamed)"  # a table's first column without a name
_LONGEST_CELL = 1 << 28  # characters; a picture in base64 is longer than csv's own limit


def file_format(path: Path) -> str | None:
    """The format a file's name tells (`.jsonl` for `train.jsonl.gz`), or None."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), None)


def read_rows(path: Path, *, limit: int | None = None, reading: Reading | None = None) -> list[Row]:
    """The first `limit` rows of a file (None: all), whose places go to `reading`.

    A text file is one row, `{"text": ...}`. Blank lines of JSON lines and CSV are no rows. Raises DataError naming the
    file, and the line where there is one, if it is missing, unreadable, damaged, empty, not UTF-8, of an unknown
    format, or holds something that is not an object; `reading` may leave out single lines that are so. Rows after
    `limit` are not checked.
    """
    if not path.is_file():
        raise missing_file(path)
    suffix = file_format(path)
    if suffix is None:
        raise DataError(f"{path}: unknown format '{path.suffix}' (allowed: {FORMATS_TEXT}); convert or rename the file")
    reading = reading or Reading(str(path))
    rows: list[Row] = []
    for number, (line, found) in enumerate(_READERS[suffix](_content(path), path), start=1):
        if isinstance(found, DataError):
            reading.refuse(found)
            continue
        rows.append(found)
        reading.places.append(f"{path}: sample {number}" + (f" (line {line})" if line not in (None, number) else ""))
        if len(rows) == limit:
            break
    if not rows and not reading.reasons:
        raise DataError(f"{path}: no samples; give a file with at least one")
    return rows


def read_json(path: Path) -> Any:
    """What a JSON file holds, whatever it is.

    Raises DataError naming the file, and the line where there is one, as `read_rows` does.
    """
    if not path.is_file():
        raise missing_file(path)
    return _json(_text(_content(path), path), path, first_line=1)


def missing_file(path: Path) -> DataError:
    """The error for a file that is not there, with near names in its folder."""
    folder = path.parent
    if path.is_dir():
        return DataError(f"{path} is a folder, not a file; name a file in it")
    if not folder.is_dir():
        return DataError(f"{path}: no such file, and no folder {folder}; check the path")
    return DataError(f"{path}: no such file{folder_hint(path.name, folder)}; check the path")


def folder_hint(name: str, folder: Path) -> str:
    """What a message says about a folder lacking `name`: the nearest data file or folder, else the first names."""
    present = sorted(entry.name for entry in folder.iterdir())
    readable = [entry for entry in present if file_format(Path(entry)) is not None or (folder / entry).is_dir()]
    stems = [entry.partition(".")[0] for entry in readable]  # the endings are alike, so they say little
    if near := get_close_matches(name.partition(".")[0], stems, n=1):
        alike = [entry for entry, stem in zip(readable, stems, strict=True) if stem == near[0]]
        return f"; did you mean '{get_close_matches(name, alike, n=1, cutoff=0)[0]}'"
    if not present:
        return f" ({folder} is empty)"
    more = f" and {len(present) - 5} more" if len(present) > 5 else ""
    return f" ({folder} has: {', '.join(present[:5])}{more})"


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    if not path.name.lower().endswith(".gz"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or not gzip ({error}); get a fresh copy, or take .gz off its name") from error


def _text(content: bytes, path: Path, *, first_line: int = 1) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + first_line
        byte = content[error.start]
        kind = "CSV UTF-8" if file_format(path) in (".csv", ".tsv") else "UTF-8"
        old, new = quote(str(path).removesuffix(".gz")), f"NEW{file_format(path) or ''}"
        convert = f"iconv -f {_encoding(content)} -t UTF-8 {old} > {new}"
        raise DataError(
            f"{path}: line {line}: byte 0x{byte:02x} is not UTF-8; save it as {kind}, or: {convert}"
        ) from error


def _encoding(content: bytes) -> str:
    """What bytes that are not UTF-8 most likely are, by its name for iconv."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return "UTF-16"
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in content) else "LATIN1"


def _jsonl_rows(content: bytes, path: Path) -> Iterator[Found]:
    if content.removeprefix(BOM_UTF8).lstrip().startswith(b"["):  # a list, whatever the file is called
        yield from _json_rows(content, path)
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if text := _text(line, path, first_line=number).strip():
                yield number, _object(_json(text, path, first_line=number), f"{path}: line {number}")
        except DataError as error:
            yield number, error


def _json_rows(content: bytes, path: Path) -> Iterator[Found]:
    text = _text(content, path)
    if not text.strip():
        return
    try:
        rows = _json(text, path, first_line=1)
    except DataError:
        if not _is_one_object(text.lstrip().partition("\n")[0]):
            raise
        yield from _jsonl_rows(content, path)
        return
    if not isinstance(rows, list):
        raise DataError(
            f"{path}: holds {_kind(rows)}, expected a list of objects; one object per line belongs in .jsonl"
        )
    for number, row in enumerate(rows, start=1):
        try:
            yield None, _object(row, f"{path}: sample {number}")
        except DataError as error:
            yield None, error


def _is_one_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _json(text: str, path: Path, *, first_line: int) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_names_once)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        hint = "; one object per line belongs in .jsonl" if error.msg == "Extra data" else "; correct the line"
        raise DataError(f"{path}: broken JSON at line {line}, column {error.colno} ({error.msg}){hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: broken JSON at or after line {first_line} ({error}); correct the file") from error


def _names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's fields; a name that stands twice would lose the first value without a word."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(
            f"the name '{next(name for name in names if names.count(name) > 1)}' occurs twice in an object"
        )
    return fields


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{place} holds {_kind(row)}, expected an object with named fields; correct it")
    return row


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _csv_rows(content: bytes, path: Path, *, delimiter: str = ",") -> Iterator[Found]:
    text = _text(content, path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_delimiter(text, delimiter))
    start, limit = 1, csv.field_size_limit(_LONGEST_CELL)
    try:
        header = _header(next(filter(None, reader), []), reader.line_num, path)
        start = reader.line_num + 1
        for cells in reader:
            yield from _csv_row(header, cells, start, path)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: broken CSV at line {start} ({error}); correct it, or use .jsonl") from error
    finally:
        csv.field_size_limit(limit)


def _delimiter(text: str, usual: str) -> str:
    """What divides the cells: spreadsheets write semicolons or tabs into .csv too, which the header shows."""
    header = text.lstrip("\r\n").partition("\n")[0]
    return usual if usual in header else next((other for other in ";\t" if other in header), usual)


def _header(names: list[str], line: int, path: Path) -> list[str]:
    """The columns' names; the first may have none, as tables are often written with their rows numbered."""
    named = [UNNAMED, *names[1:]] if names[:1] == [""] and len(names) > 1 else names
    if len(set(named)) != len(named) or "" in named:
        raise DataError(
            f"{path}: line {line}: the header {names} has an empty or repeated name; give each column a name of its own"
        )
    return named


def _csv_row(header: list[str], cells: list[str], line: int, path: Path) -> Iterator[Found]:
    if not cells:  # a blank line
        return
    if len(cells) == len(header):
        yield line, dict(zip(header, cells, strict=True))
    else:
        counts = f"{len(cells)} cells, the header has {len(header)}"
        yield line, DataError(f"{path}: line {line}: {counts}; correct it, or quote cells that hold a separator")


def _text_rows(content: bytes, path: Path) -> Iterator[Found]:
    text = _text(content, path).replace("\r\n", "\n")
    if text.strip():
        yield None, {"text": text}


def _parquet_rows(content: bytes, path: Path) -> Iterator[Found]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not a readable Parquet file ({reason}); get a fresh copy, or write it again"
        ) from error
    for batch in table.to_batches(max_chunksize=1024):
        yield from ((None, row) for row in batch.to_pylist())


_READERS: dict[str, Callable[[bytes, Path], Iterator[Found]]] = {
    ".jsonl": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": partial(_csv_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
    TEXT: _text_rows,
}
