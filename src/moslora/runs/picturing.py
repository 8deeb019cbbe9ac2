"""The pictures of a trained adapter: those its run left, or taken now from its weights."""

from pathlib import Path

from moslora.adapter.pictures import picture_adapter
from moslora.errors import ConfigError
from moslora.records import AdapterPictures
from moslora.runs.adapters import load_adapted
from moslora.runs.unfinished import open_reached


def pictures_of(source: str, *, base: str | None = None) -> AdapterPictures:
    """The inside of a run's or an adapter's folder; only a run's own pictures know where the mixers started.

    Raises `ConfigError` for a recipe, and the errors of what it opens.
    """
    if not Path(source).is_dir():
        raise ConfigError(f"--plot draws a trained adapter, and {source} is not a folder; give a run's or an adapter's")
    opened = open_reached(source, base=base)
    if opened.run and opened.run.pictures_path.is_file():
        return AdapterPictures.load(opened.run.pictures_path)
    model, _ = load_adapted(opened)
    method = opened.recipe.adapter.method if opened.recipe else opened.peft_type.lower()
    return picture_adapter(model, method=method, start=None)
