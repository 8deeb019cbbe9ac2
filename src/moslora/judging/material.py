"""What is to be judged: the answers of several methods under the same names, with their prompts and photos.

A method is a folder of pictures, or of text files; folders inside it are subjects. Pictures of `moslora generate` tell
their prompts themselves, its texts in a file beside them; a CSV file with the columns name, prompt and subject tells
those of others.
"""

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from moslora.data.images import ENDINGS
from moslora.errors import ConfigError, DataError, suggestion
from moslora.judging.noticing import larger_throughout, unused
from moslora.judging.pictures import LONGEST_PIXELS, alike, photo
from moslora.judging.prompts import PROMPTS, prompts_beside, read_prompts
from moslora.painting.png import read_picture

PICTURE, TEXT = "picture", "text"
TEXT_ENDING = ".txt"
DRAWN, SHEET = "adapter", "sheet.png"  # in a folder of `moslora generate`

_READ = f"{', '.join((*ENDINGS, TEXT_ENDING))} in it and in folders directly inside"
_READ_PHOTOS = f"{', '.join(ENDINGS)} in it and in folders named as subjects"


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

    `digest` tells whether the answers of two materials are the same, whatever is left out of them. `unused` says which
    files of the folders are no part of it.
    """

    kind: str
    methods: tuple[str, ...]
    items: tuple[Item, ...]
    photos: Mapping[str | None, tuple[Path, ...]]
    digest: str
    unused: tuple[str, ...] = ()


def read_material(
    folders: Sequence[str], *, prompts: Path | None = None, photos: Path | None = None, names: int | None = None
) -> Material:
    """The answers in the methods' folders, each FOLDER or NAME=FOLDER; with `names` only so many of them, by chance.

    Which names are left out is decided by the names alone. Raises ConfigError for fewer than two methods, and
    DataError for folders without answers, or with other names.
    """
    named = method_names(folders)
    if len(named) < 2:
        raise ConfigError(f"comparing needs at least two folders of answers, not {len(named)}; give another")
    places = {method: _place(folder) for method, folder in named.items()}
    found = {method: _answers(place) for method, place in places.items()}
    shared = _shared_names(found, named)
    kinds = {path.suffix.lower() == TEXT_ENDING for answers in found.values() for path in answers.values()}
    if len(kinds) > 1:
        raise DataError(f"{', '.join(folders)}: texts and pictures cannot be compared; give folders of one kind")
    told = read_prompts(prompts, shared) if prompts is not None else prompts_beside(found, shared)
    items = [_item(name, tuple(answers[name] for answers in found.values()), told) for name in shared]
    shown = read_photos(photos, [item.subject for item in items]) if photos is not None else {}
    left = [note for method, place in places.items() for note in unused(place, found[method].values(), read=_READ)]
    left += unused(photos, chain(*shown.values()), read=_READ_PHOTOS) if photos is not None else []
    return Material(
        kind=TEXT if kinds.pop() else PICTURE,
        methods=tuple(named),
        items=tuple(_some(items, names)),
        photos=shown,
        digest=_digest(named, items),
        unused=tuple(left),
    )


def bodies(item: Item, kind: str) -> list[bytes]:
    """What is shown of each method's answer: PNG files that nothing but the pixels tells apart, or text as UTF-8."""
    if kind == PICTURE:
        return alike(item.paths, name=item.name)
    return [_text(path) for path in item.paths]


def differing_sizes(material: Material) -> list[str]:
    """A line on each method whose pictures are larger than another's throughout, which can tell them apart."""
    if material.kind != PICTURE:
        return []
    return larger_throughout(material.methods, [item.paths for item in material.items], most=LONGEST_PIXELS)


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


def _place(folder: Path) -> Path:
    """Where in a method's folder the answers are."""
    if not folder.is_dir():
        beside = [str(path) for path in folder.parent.glob("*") if path.is_dir()] if folder.parent.is_dir() else []
        raise DataError(f"there is no folder {folder}{suggestion(str(folder), beside)}; name a folder of answers")
    is_whole = any((folder / name).is_file() for name in (SHEET, PROMPTS)) and (folder / DRAWN).is_dir()
    return folder / DRAWN if is_whole else folder


def _answers(folder: Path) -> dict[str, Path]:
    """Files by name, the folder they are in included, without the ending."""
    found: dict[str, Path] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        inside = path.relative_to(folder)
        is_hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() not in (*ENDINGS, TEXT_ENDING) or is_hidden or not path.is_file():
            continue
        name = inside.with_suffix("").as_posix()
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
            count = "1 is" if len(missing) == 1 else f"{len(missing)} are"
            holder = named[first if missing[0] in found[first] else method]
            raise DataError(
                f"{named[first]} and {named[method]} do not hold the same names: {count} in only one, the first"
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


def read_photos(folder: Path, subjects: Sequence[str | None]) -> dict[str | None, tuple[Path, ...]]:
    """The photos in a folder (of None: shown with every pair), and those in its folders named by subjects.

    Raises DataError where there are none.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; name one with photos, or with a folder of photos per subject")
    named = sorted({subject for subject in subjects if subject is not None})
    places = {None: folder, **{subject: folder / subject for subject in named if (folder / subject).is_dir()}}
    found = {subject: _pictures(place) for subject, place in places.items()}
    if not any(found.values()):
        raise DataError(f"{folder} holds no pictures, nor do its folders named by subjects; name one that does")
    return {subject: paths for subject, paths in found.items() if paths}


def photos_digest(photos: Mapping[str | None, Sequence[Path]]) -> str:
    """Tells whether two sets of photos are the same."""
    whole = hashlib.sha256()
    for subject, paths in photos.items():
        for path in paths:
            whole.update(hashlib.sha256(f"{subject}\0".encode() + path.read_bytes()).digest())
    return whole.hexdigest()


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
