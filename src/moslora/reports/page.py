"""One self-contained HTML page about runs, comparisons and studies, and its plots as files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from moslora import __version__
from moslora.errors import OutputError
from moslora.files import check_writable, write_atomically
from moslora.records import AdapterPictures
from moslora.reports.comparison_chapter import comparison_chapter
from moslora.reports.drawing import FORMATS, Plot, image_bytes, image_kind, styled
from moslora.reports.inside import adapter_plots
from moslora.reports.judging_chapter import judging_chapter
from moslora.reports.parts import Chapter, plots_of
from moslora.reports.progress import unfinished
from moslora.reports.reading import open_sources
from moslora.reports.runs_chapter import runs_chapter
from moslora.reports.sheet import sheet_bytes


@dataclass(frozen=True)
class Report:
    """Chapters ready to be written, and what of them is not finished, a line each."""

    chapters: list[Chapter]
    unfinished: list[str] = field(default_factory=list)

    @cached_property
    def plots(self) -> list[Plot]:
        """Every drawing of the page."""
        return [plot for chapter in self.chapters for section in chapter.sections for plot in plots_of(section.parts)]

    def html(self) -> str:
        """The page."""
        environment = Environment(
            loader=PackageLoader("moslora.reports"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("page.html").render(chapters=self.chapters, version=__version__)


def make_report(sources: Sequence[str | Path]) -> Report:
    """Read the folders of runs, comparisons and studies into a report. Raises what `open_sources` raises."""
    found = open_sources(sources)
    with styled():
        chapters = [comparison_chapter(one, name=f"c{number}") for number, one in enumerate(found.comparisons, start=1)]
        chapters += [judging_chapter(one, name=f"j{number}") for number, one in enumerate(found.studies, start=1)]
        chapters += [runs_chapter(found.runs, name="runs")] if found.runs else []
    states = [f"{one.folder} is not complete" for one in found.comparisons if not one.record.is_complete]
    return Report(chapters, [*states, *(state for run in found.runs if (state := unfinished(run)))])


def write_report(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    plots: str | Path | None = None,
    overwrite: bool = False,
    report: Callable[[str], None] = lambda _line: None,
) -> list[Path]:
    """Write the page to the file `output` and each drawing as PNG and SVG into the folder `plots`; what was written.

    `report` is called with a line of text for each run or comparison that is not finished.

    Raises `CheckpointError` for sources that cannot be read and, before anything is read, `OutputError` for files
    that exist (unless `overwrite`) or cannot be written.
    """
    output = Path(output)
    _check(output, overwrite=overwrite)
    folder = Path(plots) if plots is not None else None
    if folder is not None:
        _check_folder(folder, overwrite=overwrite)
    made = make_report(sources)
    page = made.html()
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, page)
    written = [output]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for plot in made.plots:
            for kind in FORMATS:
                written.append(folder / f"{plot.name}.{kind}")
                write_atomically(written[-1], image_bytes(plot, kind))
    for state in made.unfinished:
        report(f"{state}: the page shows what it has")
    return written


def check_picture(path: str | Path) -> str:
    """The kind of file, "png" or "svg". Raises `OutputError` for another ending or a file that exists."""
    kind = image_kind(path)
    _check(Path(path), overwrite=False)
    return kind


def write_adapter_pictures(pictures: AdapterPictures, path: str | Path) -> None:
    """Write every drawing of one adapter as a single `.png` or `.svg` file.

    Raises what `check_picture` raises, and `OutputError` for an adapter with nothing to draw.
    """
    kind = check_picture(path)
    with styled():
        plots = adapter_plots(pictures, prefix="adapter")
    if not plots:
        raise OutputError(
            f"there is nothing to draw: the adapter (method '{pictures.method}') has no layers with LoRA's factors;"
            " give one that has"
        )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sheet_bytes(plots, kind))


def _check(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; replace it with --overwrite, or give another name")
    check_writable(path.parent)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, plots need a folder; give another one with --plots")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(f"the folder {folder} is not empty; replace what is in it with --overwrite, or give another")
    check_writable(folder)
