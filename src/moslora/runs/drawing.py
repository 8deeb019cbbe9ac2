"""Pictures drawn with a trained adapter, with several by weight, and without any: the same noise for each.

Each method's pictures lie in a folder of their own, and all of them side by side on a sheet.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from moslora.adapter.pipeline_files import save_pipeline_lora
from moslora.adapter.pipeline_mixing import WeightedFiles, load_weighted
from moslora.errors import ConfigError
from moslora.files import check_new_folder
from moslora.painting.drawing import Drawn, draw
from moslora.painting.png import read_pictures, write_picture
from moslora.painting.reaching import check_reaches
from moslora.painting.requests import Request
from moslora.painting.sheet import Axis, contact_sheet, weights_axis
from moslora.painting.side_by_side import side_by_side
from moslora.runs.adapters import FULL, Opened, load_adapted
from moslora.runs.kinds.subject_drawing import drawing_bar
from moslora.runs.pipelines import load_pipeline

BASE, OWN, WHOLE = "base", "adapter", "model"
SHEET = "sheet.png"
MOST_ROWS = 12  # of a sheet


@dataclass(frozen=True)
class Files:
    """LoRA files beside the adapter, a path and a weight by name, and the adapter's own weight."""

    weight: float = 1.0
    beside: Mapping[str, tuple[Path, float]] = field(default_factory=dict)


def draw_pictures(
    opened: Opened,
    requests: Sequence[Request],
    folder: Path,
    *,
    files: Files | None = None,
    with_base: bool = False,
    photos: Sequence[Image.Image] = (),
    batch_size: int = 4,
    progress: bool = True,
) -> Path:
    """Draw the requests with an adapter into `folder/adapter`, and without it into `folder/base`; the sheet's path.

    A full model, merged or as it is, draws into `folder/model`. `files` mixes further LoRA files in. Raises OutputError
    for a folder that is not empty, CheckpointError for an adapter that changes nothing, and ConfigError where a full
    model shall be compared or mixed.
    """
    check_new_folder(folder)
    if opened.peft_type == FULL:
        _check_alone(opened, files, with_base=with_base)
    pipe, unload = _loaded(opened, files)
    with drawing_bar(progress=progress) as advance:
        painted = partial(draw, pipe, batch_size=batch_size, progress=advance)
        with_it = [*painted(requests)]
        unload()
        without = [] if opened.peft_type == FULL else [*painted(requests if with_base else requests[:1])]
    if without and (files is None or files.weight or any(weight for _, weight in files.beside.values())):
        check_reaches(with_it[: len(without)], without)
    drawn = {BASE: without} if with_base else {}
    drawn[WHOLE if opened.peft_type == FULL else OWN] = with_it
    for name, pictures in drawn.items():
        _write(folder / name, pictures, opened, None if name == BASE else files)
    methods = {name: read_pictures(folder / name) for name in drawn}
    sheet = side_by_side(methods, most_rows=MOST_ROWS, photos=photos)
    sheet.save(folder / SHEET)
    return folder / SHEET


def draw_sweep(
    opened: Opened,
    requests: Sequence[Request],
    folder: Path,
    *,
    weights: Sequence[float],
    files: Files,
    photos: Sequence[Image.Image] = (),
    batch_size: int = 4,
    progress: bool = True,
) -> Path:
    """Draw the requests with each weight of the adapter, the other files' as they are; the path of the sheet."""
    check_new_folder(folder)
    if opened.peft_type == FULL:
        raise ConfigError(f"{opened.adapter} is a full model without an adapter, whose weight could be swept")
    found: list[list[Image.Image]] = [[] for _ in requests]
    loaded = _weighted(opened, files)
    with drawing_bar(progress=progress) as advance:
        for weight in weights:
            loaded.weigh({OWN: weight} | {name: own for name, (_, own) in files.beside.items()})
            drawn = [*draw(loaded.pipe, requests, batch_size=batch_size, progress=advance)]
            _write(folder / f"{OWN}-{weight:g}", drawn, opened, Files(weight, files.beside))
            for row, one in zip(found, drawn, strict=True):
                row.append(one.image)
    rows = Axis(tuple(request.prompt for request in requests), notes=tuple(f"seed {one.seed}" for one in requests))
    sheet = contact_sheet(found, columns=weights_axis("weight of the adapter", weights), rows=rows, photos=photos)
    sheet.save(folder / SHEET)
    return folder / SHEET


def _check_alone(opened: Opened, files: Files | None, *, with_base: bool) -> None:
    if with_base or files:
        option = "--compare-base" if with_base else "--weight and --with"
        raise ConfigError(f"{opened.adapter} is a full model without an adapter: leave out {option}")


def _loaded(opened: Opened, files: Files | None) -> tuple[Any, Callable[[], Any]]:
    """The pipeline that draws with what was opened, and what takes the adapter off."""
    if opened.peft_type == FULL:
        return load_pipeline(opened.model), lambda: None  # pyright: ignore[reportArgumentType]
    if files:
        loaded = _weighted(opened, files)
        return loaded.pipe, loaded.unload
    model, _ = load_adapted(opened)
    return model.get_base_model().pipeline(), model.base_model.disable_adapter_layers


def _weighted(opened: Opened, files: Files) -> WeightedFiles:
    """A pipeline with the adapter, as a file that was proved in it, and the other files, each by its weight."""
    pipe = load_pipeline(opened.model)  # pyright: ignore[reportArgumentType]
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "lora.safetensors"
        save_pipeline_lora(load_adapted(opened)[0], path, load_pipeline=lambda: pipe)  # which leaves it plain
        return load_weighted(pipe, {OWN: (path, files.weight), **files.beside})


def _write(folder: Path, drawn: Sequence[Drawn], opened: Opened, files: Files | None) -> None:
    folder.mkdir(parents=True)
    weights = {OWN: files.weight, **{name: weight for name, (_, weight) in files.beside.items()}} if files else {}
    adapter = {BASE: BASE, WHOLE: "none"}.get(folder.name, str(opened.adapter))
    about = {"model": opened.model.path, "adapter": adapter}
    for one in drawn:
        write_picture(folder, one.image, request=one.request, settings={**about, "weights": weights})
