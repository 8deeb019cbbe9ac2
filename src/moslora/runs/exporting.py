"""Folding and merging what a command was given, with real text as the probe, noted in the run's record."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from moslora.adapter.export import save_folded, save_merged
from moslora.adapter.verification import Drift
from moslora.errors import ConfigError
from moslora.files import check_new_folder, check_writable
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
    _check(opened, folder)
    model, tokenizer = load_adapted(opened)
    drift = save_folded(model, folder, probe=text_probe(opened, tokenizer), allow_drift=allow_drift)
    tokenizer.save_pretrained(folder)
    return _noted(opened, Export(folder, resolve_model(opened.model.path), drift), name="folded")


def merge_adapter(opened: Opened, folder: Path, *, dtype: str | None, allow_drift: bool = False) -> Export:
    """Merge an adapter into a full model in `folder`. Raises what `save_merged` raises."""
    if opened.model.quantize != "none" and dtype is None:
        raise ConfigError(
            f"the base model is loaded with quantize: {opened.model.quantize}, and merging does not quantise again:"
            " choose the dtype of the merged weights with --dtype"
        )
    _check(opened, folder)
    model, tokenizer = load_adapted(opened)
    wanted = getattr(torch, dtype) if dtype else None
    sizes = (p.numel() * (wanted or p.dtype).itemsize for p in model.get_base_model().parameters())
    check_writable(folder, needed_bytes=sum(sizes))
    drift = save_merged(
        model,
        folder,
        dtype=wanted,
        probe=text_probe(opened, tokenizer),
        allow_drift=allow_drift,
        tokenizer=tokenizer,
    )
    return _noted(opened, Export(folder, resolve_model(opened.model.path), drift), name="merged")


def _check(opened: Opened, folder: Path) -> None:
    if opened.peft_type != "MOSLORA":
        raise ConfigError(
            f"{opened.adapter} is a {opened.peft_type} adapter without mixers: use PEFT's own tools on it"
        )
    check_new_folder(folder)


def _noted(opened: Opened, export: Export, *, name: str) -> Export:
    if opened.run is not None:
        record = opened.run.record()
        home, folder = opened.run.path.absolute(), export.folder.absolute()
        record.artifacts[name] = str(folder.relative_to(home) if folder.is_relative_to(home) else folder)
        notes = [note for note in record.notes if not note.startswith(f"{name}: ")]
        record.notes = [*notes, f"{name}: {export.verdict()}"]
        record.save(opened.run.record_path)
    return export
