"""What `moslora generate` does with an adapter of a model that draws."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moslora.cli.answering import STDIN, standard_input
from moslora.cli.options import results
from moslora.errors import ConfigError

if TYPE_CHECKING:
    from moslora.runs.adapters import Opened

OF_PICTURES = "Pictures"


def _checked_size(size: int | None) -> int | None:
    if size is not None and size % 8:
        raise typer.BadParameter(f"{size} is not a multiple of 8 pixels")
    return size


SeedsOption = Annotated[int, typer.Option(min=1, help="Pictures per prompt.", rich_help_panel=OF_PICTURES)]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Default: the recipe's.", rich_help_panel=OF_PICTURES)]
GuidanceOption = Annotated[
    float | None, typer.Option(min=0.0, help="Default: the recipe's.", rich_help_panel=OF_PICTURES)
]
SizeOption = Annotated[
    int | None,
    typer.Option(min=8, help="In pixels. Default: as trained.", rich_help_panel=OF_PICTURES, callback=_checked_size),
]
NegativeOption = Annotated[str, typer.Option(help="What not to draw.", rich_help_panel=OF_PICTURES)]
WeightOption = Annotated[float, typer.Option(help="Of the adapter.", rich_help_panel=OF_PICTURES)]
BesideOption = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="FILE=WEIGHT", help="Another LoRA file.", rich_help_panel=OF_PICTURES),
]
SweepOption = Annotated[
    str | None, typer.Option(metavar="W,W,...", help="One sheet over these weights.", rich_help_panel=OF_PICTURES)
]


def draw(
    opened: "Opened",
    *,
    prompt: str | None,
    prompts: Path | None,
    seeds: int,
    how: dict[str, Any],
    output: Path | None,
    with_base: bool,
    weight: float,
    beside: list[str],
    sweep: str | None,
) -> None:
    """Draw pictures into a new folder, and say where they lie. `how` replaces settings of the recipe."""
    from moslora.data.images import open_image
    from moslora.painting.prompts import parse_prompts, read_prompts
    from moslora.runs.drawing import Files, draw_pictures, draw_sweep
    from moslora.runs.kinds.subject_measures import photos_of, requests_of
    from moslora.runs.subject_settings import SubjectEvaluationSettings

    if prompts == Path(STDIN):
        prompt, prompts = standard_input(), None  # a prompt may be several, one per line
    settings: Any = opened.recipe.evaluation if opened.recipe else SubjectEvaluationSettings()
    settings = settings.model_copy(update={name: value for name, value in how.items() if value is not None})
    named = {"subject": settings.subject, "plain": settings.class_name}
    found = read_prompts(prompts, **named) if prompts else parse_prompts(str(prompt), place="the prompt", **named)
    requests = requests_of(found, settings, seeds=seeds)
    photos = [open_image(one.picture, place=one.name) for one in photos_of(settings)] if settings.photos else []
    folder = output or _free(opened.home / "drawn")
    files = Files(weight, _files(beside))
    shared: dict[str, Any] = {"photos": photos, "batch_size": settings.batch_size}
    number = len(requests)
    if sweep is not None:
        weights = _weights(sweep)
        number *= len(weights)
        sheet = draw_sweep(opened, requests, folder, weights=weights, files=files, **shared)
    else:
        is_mixed = weight != 1.0 or beside
        mixed = files if is_mixed else None
        sheet = draw_pictures(opened, requests, folder, files=mixed, with_base=with_base, **shared)
    results.print(f"{_counted(number, 'picture')} of {_counted(len(found), 'prompt')}: {folder}")
    results.print(f"side by side: {sheet}")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _free(folder: Path) -> Path:
    """The first of folder, folder-2, folder-3, ... that is not there."""
    number = 1
    while (place := folder if number == 1 else folder.with_name(f"{folder.name}-{number}")).exists():
        number += 1
    return place


def _files(given: list[str]) -> dict[str, tuple[Path, float]]:
    found = {}
    for one in given:
        path, separator, weight = one.rpartition("=")
        place = Path(path if separator else one)
        if place.is_dir():
            inside = sorted(place.glob("*.safetensors"))
            place = inside[0] if len(inside) == 1 else place
        found[f"{place.parent.name}-{place.stem}"] = (place, _number(weight, f"--with {one}") if separator else 1.0)
    return found


def _weights(text: str) -> list[float]:
    return [_number(part, f"--sweep {text}") for part in text.split(",")]


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{place}: '{text}' is no number; write for example 0.5")
    return value
