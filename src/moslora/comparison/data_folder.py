"""What `--data` changes in a plan: where its training samples and its questions are taken from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moslora.data.files import file_format
from moslora.data.tasks import EVERYDAY
from moslora.errors import ConfigError
from moslora.runs.recipe import LANGUAGE
from moslora.runs.subject_settings import EMOJI

HUB = "hub"  # what stands for a folder of sets where they are to come from the hub
SMALL_TASKS = ["ARC-Easy", "ARC-Challenge", "openbookqa", "piqa"]  # what a small model can be tried on, and the hub has
INSTEAD_OF_EVERYDAY = {
    "recipe.data.train": SMALL_TASKS,
    "recipe.data.together": None,
    "recipe.data.max_length_tokens": 256,
    "recipe.data.longer": "leave_out",  # PIQA has samples of more than 1,000 tokens
    "recipe.evaluation.tasks": SMALL_TASKS,
    "recipe.evaluation.limit": 500,
}


def settings_for(data: str | Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a plan, by dotted name, that take the sets from a folder, or from the hub.

    A language model's plan on the built-in set gets `SMALL_TASKS` in its place. Of a plan with pictures the folder
    holds the files that `data.train` names, the folder that `data.image_folder` names, and the questions, or the folder
    of each subject. Raises ConfigError for pictures from the hub.
    """
    recipe = _group(settings.get("recipe"))
    own = _group(recipe.get("data"))
    if subjects := _group(settings.get("subjects")):
        return _with_subjects(data, subjects)
    if recipe.get("kind") not in (None, LANGUAGE):
        return _with_pictures(data, own)
    folder = None if str(data) == HUB else str(data)
    given = {"recipe.data.folder": folder, "recipe.evaluation.data": folder}
    return given | INSTEAD_OF_EVERYDAY if own.get("train") == EVERYDAY else given


def _with_subjects(data: str | Path, subjects: Mapping[str, Any]) -> dict[str, Any]:
    """Each subject's pictures from a folder in the one given; those that come with the package stay."""
    _refuse_hub(data)
    named = {name: _group(_group(own).get("data")).get("train") for name, own in subjects.items()}
    return {
        f"subjects.{name}.data.train": str(Path(data) / Path(source).name)
        for name, source in named.items()
        if isinstance(source, str) and not source.startswith(EMOJI)
    }


def _refuse_hub(data: str | Path) -> None:
    if str(data) == HUB:
        raise ConfigError("--data hub: pictures are not loaded from the hub; give the folder they are in")


def _with_pictures(data: str | Path, own: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_hub(data)
    given: dict[str, Any] = {"recipe.evaluation.data": str(data)}
    train, images = own.get("train"), own.get("image_folder")
    sources = [train] if isinstance(train, str) else train
    if isinstance(sources, list) and any(map(_is_file, sources)):
        moved = [str(Path(data) / Path(source).name) if _is_file(source) else source for source in sources]
        given["recipe.data.train"] = moved if isinstance(train, list) else moved[0]
    if isinstance(images, str):
        given["recipe.data.image_folder"] = str(Path(data) / Path(images).name)
    return given


def _is_file(source: Any) -> bool:
    return isinstance(source, str) and file_format(Path(source)) is not None


def _group(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
