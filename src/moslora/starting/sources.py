"""What the files are that a recipe is made for: samples to train on, samples to validate on, or something else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moslora.data.calls import has_calls
from moslora.data.columns import Ask, Shape, shape_of
from moslora.data.fields import FIELDS, with_columns, without_fields
from moslora.data.files import Row
from moslora.data.folders import OTHERS
from moslora.data.reading import Reading
from moslora.data.source import load_samples
from moslora.errors import ConfigError, DataError, command

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
VALIDATING = tuple(name for name in OTHERS if name != "test")  # a test set is not looked at while training


@dataclass(frozen=True)
class Sources:
    """What `data.train` and `data.validation` name, the samples to train on, and their format.

    `has_calls`: some of them are chats with tools. `left_out` are those that cannot be used, which `samples` does not
    count once they are known.
    """

    train: list[str]
    validation: str | None
    samples: int
    shape: Shape
    has_calls: bool = False
    left_out: int = 0

    @property
    def name(self) -> str:
        """What a recipe for them is called."""
        first = self.train[0].partition("@")[0].rstrip("/")
        stem = Path(first).name.removesuffix(".gz")
        return (Path(stem).stem if Path(first).exists() else stem.replace(":", "-")) or "mine"


def look_at(given: Sequence[str], *, ask: Ask, told: Mapping[str, Any] = MappingProxyType({})) -> Sources:
    """Read the sources. `told` are settings of `data` that are given: a format and columns are then not guessed.

    Raises DataError or ConfigError with the next step for what cannot be trained on.
    """
    for source in given:
        _refuse_pictures(Path(source).expanduser())
    train, validation = _by_use(given)
    readings = {source: Reading(source, skips_bad=told.get("on_bad") != "stop") for source in train}
    read = {source: load_samples(source, reading=reading) for source, reading in readings.items()}
    for reading in readings.values():
        reading.check()
    samples = sum(len(read[source]) + len(reading.reasons) for source, reading in readings.items())
    if told.get("format") or told.get("columns"):
        shape = _as_told(told)
        return Sources(train, validation, samples, shape, _have_calls(read, shape, told))
    shapes = [shape_of(rows, source=source, ask=ask) for source, rows in read.items()]
    for source, shape in zip(read, shapes, strict=True):
        if (shape.format, shape.columns) != (shapes[0].format, shapes[0].columns):
            raise DataError(
                f"{train[0]} and {source} differ in format or columns ({_told(shapes[0])}; {_told(shape)}); give them"
                " the same columns, or make a recipe for each"
            )
    return Sources(train, validation, samples, shapes[0], _have_calls(read, shapes[0], told))


def _have_calls(read: Mapping[str, Sequence[Row]], shape: Shape, told: Mapping[str, Any]) -> bool:
    """Whether the samples, without the fields that are to be ignored, have chats with tools."""
    if shape.format != "chat":
        return False
    ignored = told.get("ignore") or []
    ignored = [ignored] if isinstance(ignored, str) else ignored
    named = (with_columns(rows, shape.columns, source=source) for source, rows in read.items())
    return any(has_calls(sample) for rows in named for sample in without_fields(rows, ignored))


def _as_told(told: Mapping[str, Any]) -> Shape:
    """The format that is given, or the one that has the fields of the given columns."""
    columns = dict(told["columns"]) if isinstance(told.get("columns"), Mapping) else {}
    fitting = [name for name, fields in FIELDS.items() if set(columns) <= set(fields)]
    return Shape(str(told.get("format") or next(iter(fitting), "instruction")), columns)


def _by_use(given: Sequence[str]) -> tuple[list[str], str | None]:
    """The sources to train on, and the one to validate on: a file, or a folder's split, that is named so."""
    named = [source for source in given if _stem(source) in VALIDATING]
    train = [source for source in given if source not in named]
    if not train:  # the only file there is may be called anything
        return list(given), None
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} are both named as samples to validate on; give one of them")
    folders = [source for source in train if _has_validation(Path(source).expanduser())]
    return train, next(iter([*named, *folders]), None)


def _stem(source: str) -> str:
    return Path(source).name.lower().partition(".")[0]


def _has_validation(folder: Path) -> bool:
    """Whether a folder has a file of the split `validation`, which `data.validation` reads."""
    return folder.is_dir() and any(path.name.lower().startswith("validation") for path in folder.iterdir())


def _refuse_pictures(path: Path) -> None:
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    if not pictures or len(pictures) < len(files) / 2:
        return
    folder = path if path.is_dir() else path.parent
    step = command(
        "train", "dreambooth-sdxl", "--set", f"data.train={folder}", "--set", "data.prompt=a photo of sks cat"
    )
    raise DataError(
        f"{path} is {'a folder of pictures' if path.is_dir() else 'a picture'}, which a text-to-image model learns a"
        f" subject from: {step} (docs/subjects.md)"
    )


def _told(shape: Shape) -> str:
    columns = ", ".join(f"{column} as {field}" for field, column in shape.columns.items())
    return f"{shape.format}, {columns}" if columns else shape.format
