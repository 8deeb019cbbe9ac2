"""Whether a study is what a command asks for, so that nobody is served another one without a word."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moslora.errors import ConfigError, command
from moslora.judging.founding import Question
from moslora.judging.judgements import opened, settings
from moslora.judging.material import photos_digest, read_material, read_photos
from moslora.judging.prompts import read_prompts

_LONGEST = 60


@dataclass(frozen=True)
class Wanted:
    """What a command asks of a study; None, or nothing, where it leaves that to the study."""

    folders: Sequence[str] = ()
    prompts: Path | None = None
    photos: Path | None = None
    names: int | None = None
    questions: Sequence[Question] = ()
    judges: int | None = None
    judge: Sequence[str] = ()
    same: int | None = None
    swapped: int | None = None


@dataclass(frozen=True)
class _Begun:
    told: dict[str, Any]
    items: dict[str, tuple[str, str | None]]  # prompt and subject
    judges: list[str]
    has_photos: bool


def check_same(study: Path, wanted: Wanted) -> None:
    """Raises ConfigError that says what a study was begun with, where something else is asked for."""
    begun = _begun(study)
    for what, known, value in _differing(study, begun, wanted):
        raise ConfigError(
            f"{study} was begun with {what} {known}, not {value}; leave the option out (the admin page adds judges), or"
            " begin another study"
        )


def _begun(study: Path) -> _Begun:
    with opened(study) as database:
        told = settings(database)
        rows = database.execute("SELECT name, prompt, subject FROM item ORDER BY id").fetchall()
        judges = [name for (name,) in database.execute("SELECT name FROM judge ORDER BY id")]
        (photos,) = database.execute("SELECT COUNT(*) FROM photo").fetchone()
    judges = judges[: told["judges_planned"]]
    return _Begun(told, {name: (prompt, subject) for name, prompt, subject in rows}, judges, photos > 0)


def _differing(study: Path, begun: _Begun, wanted: Wanted) -> Iterator[tuple[str, Any, Any]]:
    """What differs: its name, and its values in the study and in the command."""
    told = begun.told
    asked = [question.name for question in wanted.questions]
    compared: list[tuple[str, Any, Any]] = [
        ("judges", told["judges_planned"], wanted.judges),
        ("judges", begun.judges, list(wanted.judge) or None),
        ("names", len(begun.items), wanted.names),
        ("same", told["same"], wanted.same),
        ("swapped", told["swapped"], wanted.swapped),
        ("questions", told["questions"], asked or None),
    ]
    yield from ((what, known, value) for what, known, value in compared if value is not None and value != known)
    if asked:
        words = [question.text for question in wanted.questions]
        pairs = zip(told["questions"], told["question_texts"], words, strict=True)
        yield from (
            (f"question '{name}' as", f"'{known}'", f"'{text}'") for name, known, text in pairs if known != text
        )
    yield from _differing_prompts(begun, _prompts(study, begun, wanted))
    digest = told.get("photos_digest")
    if wanted.photos is not None and digest is not None:
        shown = read_photos(wanted.photos, [subject for _, subject in begun.items.values()])
        if photos_digest(shown) != digest:
            what, known = ("photos", "of its own") if begun.has_photos else ("no", "photos")
            yield what, known, f"those that are in {wanted.photos} now"


def _prompts(study: Path, begun: _Begun, wanted: Wanted) -> dict[str, tuple[str, str | None]]:
    """Prompt and subject of each name, where the command tells them."""
    if wanted.folders:
        material = read_material(wanted.folders, prompts=wanted.prompts, photos=wanted.photos)
        if material.digest != begun.told["digest"]:
            raise ConfigError(
                f"{study} was begun with other answers than are in {', '.join(wanted.folders)} now; go on with what it"
                f" holds ({command('judge', 'serve', '--study', study)}), or begin another study"
            )
        return {item.name: (item.prompt, item.subject) for item in material.items}
    if wanted.prompts is None:
        return {}
    read = read_prompts(wanted.prompts, list(begun.items))
    return {name: (read[name][0], read[name][1] or subject) for name, (_, subject) in begun.items.items()}


def _differing_prompts(begun: _Begun, given: dict[str, tuple[str, str | None]]) -> Iterator[tuple[str, Any, Any]]:
    for name, known in begun.items.items() if given else ():
        for what, before, now in zip(("prompt", "subject"), known, given[name], strict=True):
            if before != now:
                yield f"the {what} of '{name}' as", _quoted(before), _quoted(now)


def _quoted(text: str | None) -> str:
    text = text or ""
    return f"'{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}'"
