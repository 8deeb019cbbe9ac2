"""The losses of held-out samples in a comparison: lower is better, and never an accuracy."""

from moslora.comparison.loss_tables import loss_difference_grid, loss_grid
from moslora.records import ComparisonRecord
from moslora.reports.parts import Part, Table

CAPTION = "Mean loss of held-out samples, nats per token; lower is better"


def arm_losses(record: ComparisonRecord) -> list[Part]:
    """Each arm's losses, and the differences from its baseline in words; nothing without held-out samples."""
    grids = [grid for grid in (loss_grid(record), loss_difference_grid(record)) if grid.rows]
    captions = (CAPTION, "Differences in loss; below 0 the arm is better")
    parts: list[Part] = [
        Table(caption, grid.head, [[cell.text for cell in row] for row in grid.rows])
        for caption, grid in zip(captions, grids, strict=False)
    ]
    words = [[one.arm, one.task, one.verdict] for one in record.loss_differences]
    verdicts = Table(
        "Differences in loss in words", ["arm", "samples of", "in words"], words, words=["samples of", "in words"]
    )
    return [*parts, *([verdicts] if words else [])]
