"""Folding and merging what a command was given, with real text as the probe, noted in the run's record."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from moslora.adapter.export import save_folded, save_merged
from moslora.adapter.verification import Drift
from moslora.records import RunRecord
from moslora.runs.adapters import Opened, load_adapted, text_probe
from moslora.runs.models import resolve_model


@dataclass(frozen=True)
class Export:
    """An exported adapter: where it lies, its base model, and how far its outputs are from the adapter's."""

    folder: Path
    base: str
    drift: Drift

    def verdict(self) -> str:
        """The verification in one line."""
        state = "verified" if self.drift.is_within else "DIFFERS (accepted with --allow-drift)"
        return (
            f"{state}: largest logit difference {self.drift.max_difference:.3g} on the probe questions"
            f" (allowed {self.drift.tolerance:.3g}, largest logit {self.drift.largest_output:.3g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {"folder": str(self.folder), "base": self.base, **asdict(self.drift), "verified": self.drift.is_within}


def fold_adapter(opened: Opened, folder: Path, *, allow_drift: bool = False) -> Export:
    """Fold an adapter into plain LoRA in `folder`. Raises what `save_folded` raises."""
    model, tokenizer = load_adapted(opened)
    drift = save_folded(model, folder, probe=text_probe(opened, tokenizer), allow_drift=allow_drift)
    tokenizer.save_pretrained(folder)
    return _noted(opened, Export(folder, resolve_model(opened.model.path), drift), name="folded")


def merge_adapter(opened: Opened, folder: Path, *, dtype: str | None, allow_drift: bool = False) -> Export:
    """Merge an adapter into a full model in `folder`. Raises what `save_merged` raises."""
    model, tokenizer = load_adapted(opened)
    drift = save_merged(
        model,
        folder,
        dtype=getattr(torch, dtype) if dtype else None,
        probe=text_probe(opened, tokenizer),
        allow_drift=allow_drift,
        tokenizer=tokenizer,
    )
    return _noted(opened, Export(folder, resolve_model(opened.model.path), drift), name="merged")


def _noted(opened: Opened, export: Export, *, name: str) -> Export:
    if opened.run is not None:
        record: RunRecord = opened.run.record()
        inside = export.folder.absolute().is_relative_to(opened.run.path.absolute())
        place = export.folder.absolute().relative_to(opened.run.path.absolute()) if inside else export.folder
        record.artifacts[name] = str(place)
        notes = [note for note in record.notes if not note.startswith(f"{name}: ")]
        record.notes = [*notes, f"{name}: {export.verdict()}"]
        record.save(opened.run.record_path)
    return export
