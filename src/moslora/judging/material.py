"""What is to be judged: the answers of several methods under the same names, with their prompts and photos.

A method is a folder of pictures, or of text files; folders inside it are subjects. Pictures of `moslora generate` tell
their prompts themselves, its texts in a file beside them; a CSV file with the columns name, prompt and subject tells
those of others.
"""

import csv
import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from moslora.data.images import ENDINGS
from moslora.errors import ConfigError, DataError, suggestion
from moslora.judging.pictures import alike, photo
from moslora.painting.png import read_picture

PICTURE, TEXT = "picture", "text"
TEXT_ENDING = ".txt"
DRAWN, SHEET, PROMPTS = "adapter", "sheet.png", "prompts.csv"  # in a folder of `moslora generate`
PROMPTS_HEADER = b"name,prompt"


@dataclass(frozen=True)
class Item:
    """One name under which every method has an answer: their files, in the order of the methods."""

    name: str
    subject: str | None
    prompt: str
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Material:
    """The answers of all methods, and the photos of each subject (of None: shown with every pair).

    `digest` tells whether two materials are the same.
    """

    kind: str
    methods: tuple[str, ...]
    items: tuple[Item, ...]
    photos: Mapping[str | None, tuple[Path, ...]]
    digest: str


def read_material(
    folders: Sequence[str], *, prompts: Path | None = None, photos: Path | None = None, names: int | None = None
) -> Material:
    """The answers in the methods' folders, each FOLDER or NAME=FOLDER; with `names` only so many of them, by chance.

    Which names are left out is decided by the names alone. Raises ConfigError for fewer than two methods, and
    DataError for folders without answers, or with other names.
    """
    named = method_names(folders)
    if len(named) < 2:
        raise ConfigError(f"{len(named)} methods cannot be compared; give at least two folders of answers")
    found = {method: _answers(folder) for method, folder in named.items()}
    shared = _shared_names(found, named)
    kinds = {path.suffix.lower() == TEXT_ENDING for answers in found.values() for path in answers.values()}
    if len(kinds) > 1:
        raise DataError(f"{', '.join(folders)}: texts and pictures cannot be compared; give folders of one kind")
    told = _told(prompts, shared) if prompts is not None else _told_beside(found, shared)
    items = [_item(name, tuple(answers[name] for answers in found.values()), told) for name in shared]
    digest = _digest(named, items)
    return Material(
        TEXT if kinds.pop() else PICTURE, tuple(named), tuple(_some(items, names)), _photos(photos, items), digest
    )


def bodies(item: Item, kind: str) -> list[bytes]:
    """What is shown of each method's answer: PNG files that nothing but the pixels tells apart, or text as UTF-8."""
    if kind == PICTURE:
        return alike(item.paths, name=item.name)
    return [_text(path) for path in item.paths]


def photo_bodies(material: Material) -> list[tuple[str | None, bytes]]:
    """Every photo as a PNG file, with its subject."""
    return [(subject, photo(path)) for subject, paths in material.photos.items() for path in paths]


def method_names(folders: Sequence[str]) -> dict[str, Path]:
    """Folders by the methods' names: as given (NAME=FOLDER), or the last part of the path in which all differ.

    Raises ConfigError for two methods of one name.
    """
    given = [(name if separator else "", Path(folder)) for name, separator, folder in map(_split, folders)]
    parts = [folder.absolute().parts[::-1] for _, folder in given]
    depth = min(map(len, parts), default=0)
    place = next((at for at in range(depth) if len({one[at] for one in parts}) == len(parts)), 0)
    named: dict[str, Path] = {}
    for (name, folder), part in zip(given, parts, strict=True):
        label = name or part[place]
        if label in named:
            raise ConfigError(f"two methods are called '{label}'; name them: first={named[label]} second={folder}")
        named[label] = folder
    return named


def _split(text: str) -> tuple[str, str, str]:
    if Path(text).is_dir() or "=" not in text:
        return "", "", text
    return text.partition("=")


def _answers(folder: Path) -> dict[str, Path]:
    """Files by name, the folder they are in included, without the ending."""
    if not folder.is_dir():
        beside = [str(path) for path in folder.parent.glob("*") if path.is_dir()] if folder.parent.is_dir() else []
        raise DataError(f"there is no folder {folder}{suggestion(str(folder), beside)}; name a folder of answers")
    if any((folder / name).is_file() for name in (SHEET, PROMPTS)) and (folder / DRAWN).is_dir():
        folder = folder / DRAWN
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if path.suffix.lower() not in (*ENDINGS, TEXT_ENDING) or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{folder}: {found[name].name} and {path.name} share a name; remove one of them")
        found[name] = path
    if not found:
        raise DataError(f"{folder} holds no pictures and no .txt files; name the folder that holds the answers")
    return found


def _shared_names(found: Mapping[str, Mapping[str, Path]], named: Mapping[str, Path]) -> list[str]:
    first = next(iter(found))
    for method, answers in found.items():
        missing = sorted(found[first].keys() ^ answers.keys())
        if missing:
            holder = named[first if missing[0] in found[first] else method]
            raise DataError(
                f"{named[first]} and {named[method]} do not hold the same names: {len(missing)} are in only one, the"
                " first"
                f" '{missing[0]}' in {holder}; answer the same prompts with each"
            )
    return sorted(found[first])


def _item(name: str, paths: tuple[Path, ...], told: Mapping[str, tuple[str, str | None]]) -> Item:
    folder = PurePosixPath(name).parent.as_posix()
    subject = folder if folder != "." else None
    if name in told:
        prompt, own = told[name]
        return Item(name, own or subject, prompt, paths)
    prompts = {_own_prompt(path) for path in paths} - {None}
    if len(prompts) > 1:
        raise DataError(
            f"the answers to '{name}' were drawn for other prompts: {sorted(map(str, prompts))}; draw them again"
        )
    return Item(name, subject, prompts.pop() or "" if prompts else "", paths)


def _own_prompt(path: Path) -> str | None:
    try:
        return read_picture(path).request.prompt if path.suffix.lower() == ".png" else None
    except DataError:  # drawn by another program
        return None


def _told(path: Path, names: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the prompts {path} ({error}); give a CSV file with name and prompt") from error
    if not rows or not {"name", "prompt"} <= rows[0].keys():
        raise DataError(f"{path} has no columns name and prompt; write them in its first line (subject may follow)")
    told = {row["name"]: ((row["prompt"] or "").strip(), row.get("subject") or None) for row in rows}
    missing = [name for name in names if name not in told]
    if missing:
        raise DataError(f"{path} has no prompt for {len(missing)} names, first '{missing[0]}'; add their lines")
    return told


def _told_beside(found: Mapping[str, Mapping[str, Path]], names: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """The prompts that `moslora generate` wrote beside its texts. Raises DataError if the methods had others."""
    firsts = [next(iter(answers.items())) for answers in found.values()]
    beside = {path.parents[name.count("/") + 1] / PROMPTS for name, path in firsts}
    files = sorted(path for path in beside if path.is_file() and path.read_bytes().startswith(PROMPTS_HEADER))
    told = [_told(path, names) for path in files]
    for path, own in zip(files, told, strict=True):
        other = next((name for name in names if own[name] != told[0][name]), None)
        if other is not None:
            raise DataError(f"{files[0]} and {path} have different prompts for '{other}'; answer the same with each")
    return told[0] if told else {}


def _photos(folder: Path | None, items: Sequence[Item]) -> dict[str | None, tuple[Path, ...]]:
    if folder is None:
        return {}
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name one with photos, or with a folder of photos per subject")
    subjects = sorted({item.subject for item in items if item.subject is not None})
    places = {None: folder, **{subject: folder / subject for subject in subjects if (folder / subject).is_dir()}}
    found = {subject: _pictures(place) for subject, place in places.items()}
    if not any(found.values()):
        raise DataError(f"{folder} holds no pictures, nor do its folders named by subjects; name one that does")
    return {subject: paths for subject, paths in found.items() if paths}


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in sorted(folder.iterdir()) if path.suffix.lower() in ENDINGS and path.is_file())


def _some(items: Sequence[Item], number: int | None) -> list[Item]:
    if number is None or number >= len(items):
        return list(items)
    chosen = random.Random("\n".join(item.name for item in items)).sample(range(len(items)), number)
    return [items[place] for place in sorted(chosen)]


def _digest(named: Mapping[str, Path], items: Sequence[Item]) -> str:
    whole = hashlib.sha256("\0".join(named).encode())
    for item in items:
        for path in item.paths:
            whole.update(hashlib.sha256(item.name.encode() + b"\0" + path.read_bytes()).digest())
    return whole.hexdigest()


def _text(path: Path) -> bytes:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the answer {path} ({error}); save it as UTF-8") from error
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return lines.strip("\n").encode()  # a first line that is indented stays so, as code is
