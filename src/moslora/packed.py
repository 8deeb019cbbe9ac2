"""One file for what the runs of a finished comparison hold beside their records: answers, curves, losses and recipes.

The pack lies in the comparison's folder: gzip, one JSON object a file, `path` (from that folder) and `text`. Readers
ask for a file where it lay before, so that nothing but this module knows of packs.
"""

import gzip
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from moslora.errors import CheckpointError
from moslora.files import write_atomically

PACK = "runs.jsonl.gz"
PACKED = ("answers/*.json*", "metrics.jsonl", "validation.jsonl", "recipe.yaml", "sample.txt")  # of a run's folder
RECORD = "run.json"
DEPTH = 5  # of a run's answers below the comparison: runs, run, subject, answers, file


def read_text(path: Path) -> str | None:
    """The text of a run's file, or what the pack of a folder above holds of it; None where there is neither.

    Raises OSError or UnicodeDecodeError for a file that cannot be read, and `CheckpointError` for a damaged pack.
    """
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        pass
    for folder in [*path.parents][:DEPTH]:
        pack = folder / PACK
        if pack.is_file():
            return _read(pack).get(path.relative_to(folder).as_posix())
    return None


def pack(folder: str | Path) -> int:
    """Move the files of all runs in a comparison's folder into its pack, and return how many there were.

    What an earlier pack holds stays, unless a run has written it anew. The same files give the same bytes. Files are
    removed only once the pack is written and reads back the same. Raises `OutputError` if it cannot be written, and
    `CheckpointError` for a damaged pack.
    """
    folder = Path(folder)
    target = folder / PACK
    found = {path.relative_to(folder).as_posix(): path for path in _loose(folder)}
    if not found:
        return 0
    texts = dict(_read(target)) if target.is_file() else {}
    texts |= {name: path.read_bytes().decode() for name, path in found.items()}
    lines = (json.dumps({"path": name, "text": texts[name]}, ensure_ascii=False) + "\n" for name in sorted(texts))
    write_atomically(target, gzip.compress("".join(lines).encode(), mtime=0))
    if _read(target) != texts:
        raise CheckpointError(f"{target} does not read back as it was written; check the disk, nothing was removed")
    for path in found.values():
        path.unlink()
    for place in {path.parent for path in found.values() if path.parent.name == "answers"}:
        if not any(place.iterdir()):
            place.rmdir()
    return len(found)


def _loose(folder: Path) -> Iterator[Path]:
    for record in sorted(folder.rglob(RECORD)):
        for pattern in PACKED:
            yield from sorted(record.parent.glob(pattern))


def _read(path: Path) -> dict[str, str]:
    about = path.stat()
    return _parsed(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2)
def _parsed(path: Path, _changed: int, _size: int) -> dict[str, str]:
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")
        return {line["path"]: line["text"] for line in map(json.loads, filter(None, lines))}
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"cannot read the pack {path}: {error!r}; restore the file") from error
