"""Several adapters' insides in one table of medians."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import median

from moslora.records import AdapterPictures, LayerPicture
from moslora.reports.parts import Cell, Table
from moslora.reports.wording import NONE


def medians_table(adapters: Mapping[str, AdapterPictures]) -> Table:
    """Median over the layers of each adapter, and the kind of module with most of the update's squared norm."""
    head = ["adapter", "effective rank", "moved from start", "from identity", "from orthogonal", "most of the update"]
    rows = [
        [
            Cell(label, f"{len(pictures.layers)} layers"),
            _of_rank(pictures.layers),
            _median(pictures.layers, "mixer_from_start"),
            _median(pictures.layers, "mixer_from_identity"),
            _median(pictures.layers, "mixer_from_orthogonal"),
            _largest(pictures.layers),
        ]
        for label, pictures in adapters.items()
        if pictures.layers
    ]
    return Table("Medians over the layers", head, rows)


def _of_rank(layers: list[LayerPicture]) -> Cell:
    ranks = sorted({layer.rank for layer in layers})
    shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    return Cell(f"{median(layer.effective_rank for layer in layers):.1f}", f"of {shown}")


def _median(layers: list[LayerPicture], field: str) -> str:
    values = [value for layer in layers if (value := getattr(layer, field)) is not None]
    return f"{median(values):.3f}" if values else NONE


def _largest(layers: list[LayerPicture]) -> Cell:
    sums: defaultdict[str, float] = defaultdict(float)
    for layer in layers:
        sums[layer.name.rpartition(".")[2]] += layer.update_norm**2
    total = sum(sums.values())
    if not total:
        return Cell(NONE)
    kind = max(sums, key=sums.__getitem__)
    return Cell(kind, f"{100 * sums[kind] / total:.0f} %")
