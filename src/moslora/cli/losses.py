"""The losses of held-out samples as a table, 60 columns wide."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from moslora.cli.options import print_table
from moslora.records import LossRecord


def print_losses(console: Console, losses: Sequence[LossRecord]) -> None:
    """The mean loss of a token with its interval, and the perplexity, of each set of held-out samples."""
    if not losses:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("held out", "when", "loss (95 %)", "perplexity", "samples"):
        table.add_column(heading, justify="left" if heading in ("held out", "when") else "right")
    for one in losses:
        table.add_row(one.task, one.when, _with_interval(one), f"{one.perplexity:,.2f}", f"{one.samples:,}")
    print_table(console, table)


def _with_interval(one: LossRecord) -> str:
    return f"{one.loss:.3f}" + ("" if one.high is None else f" ± {one.high - one.loss:.3f}")
