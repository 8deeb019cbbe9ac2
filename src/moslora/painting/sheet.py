"""Contact sheets: pictures in rows and columns with their names, on white. Imports no torch.

Rows are prompts and columns methods, as in Figures 6 to 10 of the paper, with the subject's photos above; or either is
a scale of weights, for a sweep. All measures are in pixels of a sheet of scale 1; a sheet of scale 2 has twice as many,
for screens and print that show them.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from moslora.errors import ConfigError
from moslora.files import write_atomically
from moslora.painting.canvas import GREY, PALE, Box, Canvas
from moslora.painting.lettering import line_height, text_width, wrapped

Grid = Sequence[Sequence[Image.Image | None]]

MARGIN, GAP, BAND = 28, 8, 22  # around all; between pictures; between the parts of a sheet
WIDEST_GUTTER, NARROWEST_GUTTER = 168, 48  # for the names of rows
TITLE, LABEL, TEXT, SMALL = 22, 15, 14, 12  # sizes of letters
PHOTO_SHARES = (0.3, 0.6)  # of the height of a cell: photos are as large as lets them stand in one line
SMALLEST_CELL, SCALES = 32, (1, 2, 3, 4)


@dataclass(frozen=True)
class Axis:
    """The names of rows or columns, in order; `notes` stand below them, smaller.

    With a `name` the axis is a scale, as of weights, and an arrow says which way it grows.
    """

    labels: tuple[str, ...]
    name: str | None = None
    notes: tuple[str, ...] = ()


class Sheet(NamedTuple):
    """A contact sheet, and where on it each picture and each photo stands."""

    image: Image.Image
    cells: list[list[Box]]
    photos: list[Box]

    def save(self, path: str | Path) -> None:
        """Write it atomically as a PNG file. Raises OutputError if it cannot be written."""
        stream = io.BytesIO()
        self.image.save(stream, "PNG", optimize=True)
        write_atomically(path, stream.getvalue())


def weights_axis(name: str, weights: Sequence[float]) -> Axis:
    """The scale of an adapter's weights."""
    return Axis(tuple(f"{weight:g}" for weight in weights), name=name)


def contact_sheet(
    pictures: Grid,
    *,
    columns: Axis,
    rows: Axis,
    photos: Sequence[Image.Image] = (),
    photos_label: str = "Photos of the subject",
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    note: str | None = None,
    cell: int = 256,
    scale: int = 1,
) -> Sheet:
    """The pictures, row by row, each as wide as `cell`, as high as the first one's shape asks.

    Pictures of another shape are fitted in whole; None stays empty. `captions` stand below the pictures, `title` above
    all and `note` below. Raises ConfigError if pictures, names and captions differ in number, for a cell of fewer than
    32 pixels, and for a scale that is not in `SCALES`.
    """
    _check_shape(pictures, columns, rows, captions)
    if cell < SMALLEST_CELL or scale not in SCALES:
        allowed = f"at least {SMALLEST_CELL} pixels, and a scale of {', '.join(map(str, SCALES))}"
        raise ConfigError(f"a sheet cannot have cells of {cell} pixels at scale {scale}; give {allowed}")
    gutter = _gutter(rows, scale, photos_label if photos else "")
    page = _Page(pictures, gutter, cell=cell, scale=scale, has_captions=captions is not None)
    page.write_title(title)
    shown = page.paste_photos(photos, photos_label)
    page.write_columns(columns, rows.name)
    cells = [
        page.paste_row(row, label, rows.notes[place : place + 1], captions[place] if captions else ())
        for place, (row, label) in enumerate(zip(pictures, rows.labels, strict=True))
    ]
    page.write_note(note)
    return Sheet(page.canvas.cut(), cells, shown)


class _Page:
    """The parts of a sheet, each below the one before."""

    def __init__(self, pictures: Grid, gutter: int, *, cell: int, scale: int, has_captions: bool) -> None:
        shapes = [picture.size for row in pictures for picture in row if picture is not None]
        width, height = shapes[0] if shapes else (1, 1)
        self.scale = scale
        self.cell = cell * scale, max(1, round(cell * scale * height / width))
        self.margin, self.gap, self.band, self.gutter = MARGIN * scale, GAP * scale, BAND * scale, gutter
        self.caption = line_height(SMALL * scale) + self.gap // 2 if has_captions else 0
        self.left, count = self.margin + self.gutter, len(pictures[0])
        self.room = count * self.cell[0] + (count - 1) * self.gap
        self.canvas = Canvas(self.left + self.room + self.margin, scale=scale)
        self.canvas.y = self.margin

    def write_title(self, title: str | None) -> None:
        if title:
            self.canvas.write(title, self.margin, width=self.gutter + self.room, size=TITLE)
            self.canvas.y += self.band // 2

    def write_note(self, note: str | None) -> None:
        if note:
            self.canvas.y += self.band // 2
            self.canvas.write(note, self.margin, width=self.gutter + self.room, size=SMALL, colour=GREY)
        self.canvas.y += self.margin - self.gap

    def paste_photos(self, photos: Sequence[Image.Image], label: str) -> list[Box]:
        """The photos, whole, beside their name: in one line if they are not too small then, else in several."""
        if not photos:
            return []
        shapes = [photo.width / photo.height for photo in photos]
        in_one_line = (self.room - (len(photos) - 1) * self.gap) / sum(shapes)
        least, most = (round(share * self.cell[1]) for share in PHOTO_SHARES)
        height = min(most, int(in_one_line)) if in_one_line >= least else least
        y, x, boxes = self.canvas.y, self.left, []
        self.canvas.write(label, self.margin, width=self.gutter - 2 * self.gap, size=TEXT, colour=GREY)
        for photo, shape in zip(photos, shapes, strict=True):
            width = min(max(1, round(height * shape)), self.room)
            if x > self.left and x + width > self.left + self.room:
                x, y = self.left, y + height + self.gap
            boxes.append(self.canvas.paste(photo, (x, y, x + width, y + height)))
            x += width + self.gap
        self.canvas.y = max(self.canvas.y, y + height) + self.band
        return boxes

    def write_columns(self, columns: Axis, rows_name: str | None) -> None:
        """The names of the columns, and above them that of their scale; the name of the rows' scale at the left."""
        if columns.name:
            self._write_scale(columns.name)
        top, bottoms = self.canvas.y, []
        for place, label in enumerate(columns.labels):
            self.canvas.y, x = top, self._x(place)
            self.canvas.write(label, x, width=self.cell[0], size=LABEL, is_centred=True)
            for note in columns.notes[place : place + 1]:
                self.canvas.write(note, x, width=self.cell[0], size=SMALL, colour=GREY, is_centred=True)
            bottoms.append(self.canvas.y)
        self.canvas.y = max(bottoms)
        if rows_name:
            line = line_height(TEXT * self.scale)
            self.canvas.y -= line
            self.canvas.write(
                rows_name, self.margin, width=self.gutter - 4 * self.gap, size=TEXT, colour=GREY, most_lines=1
            )
            x, y = self.left - 2 * self.gap, self.canvas.y - line
            self.canvas.arrow((x, y + line // 4), (x, self.canvas.y))
        self.canvas.y += self.gap

    def paste_row(
        self, row: Sequence[Image.Image | None], label: str, notes: Sequence[str], captions: Sequence[str]
    ) -> list[Box]:
        """One row: its name in the middle of its height, its pictures, and their captions."""
        top, boxes = self.canvas.y, []
        bottom = top + self.cell[1]
        for place, picture in enumerate(row):
            x = self._x(place)
            box = (x, top, x + self.cell[0], bottom)
            if picture is None:
                self.canvas.fill(box, PALE)
            boxes.append(box if picture is None else self.canvas.paste(picture, box))
            for caption in captions[place : place + 1]:
                self.canvas.y = bottom + self.gap // 2
                style = {"size": SMALL, "colour": GREY, "is_centred": True, "most_lines": 1}
                self.canvas.write(caption, x, width=self.cell[0], **style)
        self._write_name(label, notes, top)
        self.canvas.y = bottom + self.caption + self.gap
        return boxes

    def _write_name(self, label: str, notes: Sequence[str], top: int) -> None:
        width, line = self.gutter - 2 * self.gap, line_height(TEXT * self.scale)
        below = line_height(SMALL * self.scale) * len(notes)
        most = max(1, (self.cell[1] - below) // line)
        lines = len(wrapped(label, width, size_pixels=TEXT * self.scale, most_lines=most))
        self.canvas.y = top + max(0, self.cell[1] - below - lines * line) // 2
        self.canvas.write(label, self.margin, width=width, size=TEXT, most_lines=most)
        for note in notes:
            self.canvas.write(note, self.margin, width=width, size=SMALL, colour=GREY, most_lines=1)

    def _write_scale(self, name: str) -> None:
        middle = self.canvas.y + line_height(TEXT * self.scale) // 2
        self.canvas.write(name, self.left, width=self.room - 4 * self.gap, size=TEXT, colour=GREY, most_lines=1)
        start = self.left + round(text_width(name, TEXT * self.scale) + 1.5 * self.gap)
        end = self.left + self.room - self.scale
        if start < end - 2 * self.gap:
            self.canvas.arrow((start, middle), (end, middle))

    def _x(self, column: int) -> int:
        return self.left + column * (self.cell[0] + self.gap)


def _gutter(rows: Axis, scale: int, photos_label: str) -> int:
    """How wide the place for the rows' names is: no wider than they need."""
    widths = [text_width(text, TEXT * scale) for text in (*rows.labels, photos_label)]
    widths += [text_width(note, SMALL * scale) for note in rows.notes]
    widths += [text_width(rows.name, TEXT * scale) + 2 * GAP * scale] if rows.name else []
    needed = round(max(widths)) + 1 + 2 * GAP * scale
    return min(WIDEST_GUTTER * scale, max(NARROWEST_GUTTER * scale, needed))


def _check_shape(pictures: Grid, columns: Axis, rows: Axis, captions: Sequence[Sequence[str]] | None) -> None:
    wide, high = len(columns.labels), len(rows.labels)
    if not wide or not high:
        raise ConfigError(f"{high} rows of {wide} columns make no sheet; give at least one picture")
    for what, grid in (("pictures", pictures), ("captions", captions)):
        if grid is not None and [len(row) for row in grid] != [wide] * high:
            shape = ", ".join(str(len(row)) for row in grid) or "none"
            raise ConfigError(f"the {what} (in rows of {shape}) do not fit the names of {high} rows and {wide} columns")
    for axis in (columns, rows):
        if axis.notes and len(axis.notes) != len(axis.labels):
            raise ConfigError(f"{len(axis.notes)} notes do not fit {len(axis.labels)} names; give one each, or none")
