"""Which files of a folder make up a split."""

from collections.abc import Sequence
from pathlib import Path

from moslora.data.files import FORMATS, FORMATS_TEXT, TEXT, file_format, folder_hint
from moslora.errors import DataError

TRAIN = "train"
OTHERS = ("test", "validation", "valid", "val", "dev", "eval")  # what the files beside those to train on are called


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split, in the order of their names.

    That is the one named after it (`train.jsonl`), else those that start so (`train-00001.parquet`) in the folder or
    its `data`, else all in a folder named after it. To train on it is, failing these, every file that is not named
    after another split. Text files (.txt) count where there are no others. Raises DataError if there is none, or the
    split is there in several formats.
    """
    if found := with_any_format([folder / split]):
        return [only(found)]
    for files in (_starting_with(split, folder), _starting_with(split, folder / "data"), _data_files(folder / split)):
        if files:
            return files
    rest = [path for path in _data_files(folder) if not any(_is_of(path, name) for name in OTHERS)]
    if split == TRAIN and rest:
        return rest
    raise DataError(
        f"{folder}: no file '{split}' ending in {FORMATS_TEXT}"
        f"{folder_hint(f'{split}.jsonl', folder)}; name the file itself"
    )


def with_any_format(stems: Sequence[Path]) -> list[Path]:
    """The files that have one of these names and the ending of a format."""
    endings = [f"{suffix}{packed}" for suffix in FORMATS for packed in ("", ".gz")]
    paths = [stem.with_name(stem.name + ending) for stem in stems for ending in endings]
    return [path for path in paths if path.is_file()]


def only(found: Sequence[Path]) -> Path:
    """The one file that was found. Raises DataError for several."""
    if len(found) > 1:
        raise DataError(f"more than one file matches: {', '.join(map(str, found))}; remove all but one")
    return found[0]


def _starting_with(split: str, folder: Path) -> list[Path]:
    return [path for path in _data_files(folder) if _is_of(path, split)]


def _is_of(path: Path, split: str) -> bool:
    """Whether a file is named after a split: `test.csv`, `test-00000-of-00002.parquet`, `test_2.jsonl`."""
    name = path.name.lower()
    return name.startswith(split) and not name.removeprefix(split)[:1].isalnum()


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    known = [path for path in files if file_format(path) is not None]
    return [path for path in known if file_format(path) != TEXT] or known
