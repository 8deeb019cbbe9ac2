"""Lists of prompts: text files, one prompt a line, in which a placeholder stands for the subject. Imports no torch."""

import re
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from moslora.errors import DataError, unknown_name

PLACEHOLDERS = ("{}", "{subject}")
_BRACES = re.compile(r"\{[^{}]*\}")
_LISTS = resources.files("moslora.painting") / "prompt_lists"


class Prompt(NamedTuple):
    """A prompt as the model gets it, and without the identifier, which only the trained model knows.

    A picture is compared with the `plain` text: "a ikat cat in the snow" is what is asked for, "a cat in the snow" is
    what other models can see in it.
    """

    text: str
    plain: str


def shipped_names() -> list[str]:
    """The names of the lists that come with the package."""
    return sorted(file.name.removesuffix(".txt") for file in _LISTS.iterdir() if file.name.endswith(".txt"))


def shipped_prompts(name: str, *, subject: str | None = None, plain: str | None = None) -> list[Prompt]:
    """A list that comes with the package: `dreambooth-live`, `dreambooth-objects`, or `unrelated` to any subject.

    The rest is as in `parse_prompts`. Raises ConfigError, with the nearest name, for an unknown one.
    """
    if name not in shipped_names():
        raise unknown_name("list of prompts", name, shipped_names())
    text = (_LISTS / f"{name}.txt").read_text(encoding="utf-8")
    return parse_prompts(text, place=f"the prompts {name}", subject=subject, plain=plain)


def read_prompts(path: str | Path, *, subject: str | None = None, plain: str | None = None) -> list[Prompt]:
    """The prompts of a text file in UTF-8; see `parse_prompts`. Raises DataError if it cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: the prompts cannot be read ({error.strerror}); name a text file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text in UTF-8 ({error.reason}); save it as UTF-8") from error
    return parse_prompts(text, place=str(path), subject=subject, plain=plain)


def parse_prompts(text: str, *, place: str, subject: str | None = None, plain: str | None = None) -> list[Prompt]:
    """The prompts of a text: one a line, without blank lines and lines that start with #.

    `{}` or `{subject}` becomes `subject`, the identifier with its class ("ikat cat"), and in the plain text `plain`,
    the class alone ("cat"), or `subject` where there is none. Raises DataError, naming `place` and the line, for a
    placeholder without a subject, for other braces, for a prompt that is there twice, and for a text without prompts.
    """
    found: dict[Prompt, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        template = " ".join(line.split())
        if not template or template.startswith("#"):
            continue
        _check_braces(template, place=f"{place}, line {number}", has_subject=subject is not None)
        prompt = Prompt(_filled(template, subject or ""), _filled(template, plain or subject or ""))
        if prompt in found:
            raise DataError(f"{place}, line {number}: '{prompt.text}' is line {found[prompt]} too; remove one")
        found[prompt] = number
    if not found:
        raise DataError(f"{place}: has no prompts; write one per line")
    return list(found)


def _filled(template: str, subject: str) -> str:
    for placeholder in PLACEHOLDERS:
        template = template.replace(placeholder, subject)
    return template


def _check_braces(template: str, *, place: str, has_subject: bool) -> None:
    for braces in _BRACES.findall(template):
        if braces not in PLACEHOLDERS:
            raise DataError(f"{place}: unknown placeholder {braces} (allowed: {', '.join(PLACEHOLDERS)})")
        if not has_subject:
            raise DataError(f"{place}: nothing is known to put in the place of {braces}; name the subject")
