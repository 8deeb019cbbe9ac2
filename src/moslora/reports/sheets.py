"""What text-to-image models drew, as contact sheets: a run before and after training, the arms of a comparison."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from moslora.errors import DataError
from moslora.painting.png import Painted, read_pictures
from moslora.painting.side_by_side import side_by_side
from moslora.reports.parts import Picture
from moslora.reports.reading import Comparison, StoredRun

FOLDER, PHOTOS = "pictures", "photos"
MOMENTS = {"before": "before training", "after": "after training"}
ROWS, CELL, SCALE = 8, 128, 2
BASE = "without adapter"


def run_sheet(run: StoredRun) -> Picture | None:
    """A run's pictures before and after training; None where none were drawn."""
    methods = {name: _pictures(run, when) for when, name in MOMENTS.items()}
    return _sheet({name: own for name, own in methods.items() if own}, run, caption="The same noise, before and after")


def comparison_sheets(comparison: Comparison) -> list[Picture]:
    """What each arm drew of each subject with its first seed, beside the untrained model, where anything was drawn."""
    subjects = dict.fromkeys(run.subject for seeds in comparison.runs.values() for run in seeds.values())
    return [sheet for subject in subjects if (sheet := _subject_sheet(comparison, subject))]


def _subject_sheet(comparison: Comparison, subject: str | None) -> Picture | None:
    of_subject = {
        arm: [run for run in seeds.values() if run.subject == subject] for arm, seeds in comparison.runs.items()
    }
    firsts = {arm: runs[0] for arm, runs in of_subject.items() if runs}
    some = next(iter(firsts.values()))
    methods = {BASE: _pictures(some, "before")} | {arm: _pictures(run, "after") for arm, run in firsts.items()}
    found = {name: own for name, own in methods.items() if own}
    start = "" if subject is None else f"{subject}. "
    return _sheet(found, some, caption=f"{start}The same prompts and noise for every arm, each with its first seed")


def _pictures(run: StoredRun, when: str) -> list[Painted]:
    place = run.folder / FOLDER / when
    return read_pictures(place) if place.is_dir() and any(place.glob("*.png")) else []


def _sheet(methods: Mapping[str, Sequence[Painted]], run: StoredRun, *, caption: str) -> Picture | None:
    if not methods:
        return None
    try:
        image = side_by_side(methods, most_rows=ROWS, cell=CELL, scale=SCALE, photos=_photos(run)).image
    except DataError:  # arms that were asked for other pictures have no sheet together
        return None
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    uri = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return Picture(caption, uri, image.width // SCALE, image.height // SCALE)


def _photos(run: StoredRun) -> list[Image.Image]:
    place: Path = run.folder / FOLDER / PHOTOS
    return [Image.open(path).convert("RGB") for path in sorted(place.glob("*.png"))]
