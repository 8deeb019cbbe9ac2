"""`moslora report`: runs, comparisons and judged studies as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from moslora.cli.options import remark, remarks, results

EXAMPLES = (
    "moslora report runs/demo",
    "moslora report comparisons/table4-small --output table4.html --plots figures",
    "# two runs side by side",
    "moslora report runs/lora runs/moslora --output both.html",
)


def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|COMPARISON|STUDY",
            help="Folders that `moslora train`, `moslora compare` or `moslora judge serve` wrote.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The page. Default: report.html in the first folder.",
            show_default=False,
        ),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option("--plots", metavar="FOLDER", help="Also write every plot as PNG and SVG.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files of an earlier report.")] = False,
) -> None:
    """Write one self-contained HTML page: tables, intervals, curves, costs, and the inside of the adapters."""
    from moslora.reports.page import write_report

    page = output or Path(sources[0]) / "report.html"
    written = write_report(sources, page, plots=plots, overwrite=overwrite, report=remark)
    results.print(str(page))
    if plots is not None:
        remarks.print(f"{len(written) - 1} plots in {plots}")
