"""Recipes to start from with data of one's own: every setting once, those that are not needed as comments.

Beside the package's recipes lie only their heads and the settings that are on; the settings' classes give the rest.
"""

from importlib import resources
from typing import Any

from moslora.runs.commented import commented
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.settings import read_settings

SKELETONS = ("instruction", "chat", "text", "choice")
_ABOUT = """\
#
# Every setting stands here once. One behind a '#' has the value shown, or none: take the '#' away to change it.
# `moslora settings NAME` explains a setting; `moslora init FILE` writes a shorter recipe, made for your data."""


def skeleton_settings(name: str) -> dict[str, Any]:
    """The settings that are on in a skeleton."""
    return read_settings(_text(name), source=f"skeleton {name}")


def skeleton_text(name: str) -> str:
    """A skeleton as YAML, every setting once."""
    text = _text(name)
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    return commented(LanguageRecipe, skeleton_settings(name), head=f"{head}\n{_ABOUT}", reasons={}, complete=True)


def _text(name: str) -> str:
    return (resources.files("moslora") / "recipes" / "skeletons" / f"{name}.yaml").read_text(encoding="utf-8")
