"""Folding and merging what a command was given, compared on real inputs of its kind, noted in the run's record."""

import math
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moslora.adapter.card import serving_note
from moslora.adapter.export import save_merged, write_merged
from moslora.adapter.merging import merged_by_peft, whole_model
from moslora.adapter.proving import prove_copy
from moslora.adapter.twin import base_of
from moslora.adapter.verification import Drift, coarsest_dtype, probe_output
from moslora.errors import ConfigError, command, python_text
from moslora.files import cache_folder, check_new_folder, check_writable
from moslora.runs.adapters import FULL, MOSLORA, PROJECTOR_ONLY, Opened, load_adapted, text_probe
from moslora.runs.kinds import kind_of
from moslora.runs.models import load_model, resolve_model
from moslora.runs.origin import reached_in, write_origin
from moslora.runs.ownership import check_unowned


@dataclass(frozen=True)
class Export:
    """An exported adapter: where it lies, its base model, and how far its outputs are from the adapter's."""

    folder: Path
    base: str
    drift: Drift
    class_name: str  # of transformers, that loads the base
    options: dict[str, Any]  # that it is loaded with
    notes: tuple[str, ...] = ()  # what a reader should know of it
    outputs: str = "logits"  # what was compared
    asked: str = "questions"  # on what

    def verdicts(self) -> list[str]:
        """The verification, a line each: of the tensors, of the outputs, of the likeliest tokens if it gives tokens."""
        tensors = self.drift.tensors
        if tensors.layers:
            exactness = (
                f"verified: tensors of {tensors.layers} layers differ by at most {tensors.difference:.2g} of their"
                f" largest number, as rounding to {tensors.dtype} explains"
            )
        else:
            exactness = f"verified: {tensors.compared} tensors are loaded as they were written"
        state = "verified" if self.drift.is_within else "DIFFERS (accepted with --allow-drift)"
        outputs = (
            f"{state}: {self.outputs} differ by {self.drift.difference:.3g} on the probe {self.asked}"
            f" (allowed {self.drift.tolerance:.3g}, largest {self.outputs[:-1]} {self.drift.largest_output:.3g})"
        )
        return [exactness, outputs, *self._likeliest()]

    def _likeliest(self) -> list[str]:
        """How often the likeliest token is the same, rounded down: 100 % are all."""
        if self.drift.same_token is None:
            return []
        share = math.floor(1000 * self.drift.same_token + 1e-6) / 10
        return [f"the likeliest token is the same at {share:g} % of {self.drift.positions:,} positions"]

    def base_code(self) -> str:
        """Python code that loads the base model."""
        return self._loading(self.base, self.options)

    def merged_code(self) -> str:
        """Python code that loads the exported full model."""
        return self._loading(self.folder, {k: v for k, v in self.options.items() if k == "trust_remote_code"})

    def _loading(self, path: str | Path, options: dict[str, Any]) -> str:
        shown = {name: python_text(value) if isinstance(value, str) else value for name, value in options.items()}
        arguments = [python_text(path), *(f"{name}={value}" for name, value in shown.items())]
        return f"{self.class_name}.from_pretrained({', '.join(arguments)})"

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {"folder": str(self.folder), "base": self.base, **asdict(self.drift), "verified": self.drift.is_within}


def _export(opened: Opened, folder: Path, drift: Drift, *, num_labels: int | None) -> Export:
    """The export, with what loads its base model again."""
    settings, options = opened.model, {}
    if settings.revision is not None:
        options["revision"] = settings.revision
    if settings.trust_remote_code:
        options["trust_remote_code"] = True
    if not opened.head.is_language_model and num_labels is not None:
        options["num_labels"] = num_labels
    base, kind = resolve_model(settings.path), kind_of(settings.kind)
    return Export(folder, base, drift, opened.head.class_name, options, outputs=kind.outputs, asked=kind.probed)


def _of_its_base(opened: Opened, export: Export) -> str | None:
    """That the base model was made on this machine, and is not found elsewhere."""
    if not Path(export.base).is_relative_to(cache_folder()):
        return None
    return (
        "the base model was made on this machine and is in its cache; to use the result elsewhere:"
        f" {command('merge', opened.run.path if opened.run else opened.adapter)}"
    )


def _labels(model: Any) -> int | None:
    """The number of labels that a model's configuration has; None of one without a configuration."""
    return getattr(getattr(base_of(model), "config", None), "num_labels", None)


def fold_adapter(opened: Opened, folder: Path, *, format: str | None = None, allow_drift: bool = False) -> Export:
    """Fold an adapter into plain LoRA in `folder`, in a format of its kind. Raises what `save_folded` raises."""
    kind = kind_of(opened.model.kind)
    chosen = format or kind.fold_formats[0]
    if chosen not in kind.fold_formats:
        *others, last = kind.fold_formats
        allowed = f"{', '.join(others)} or {last}" if others else last
        raise ConfigError(f"--format {format}: such an adapter is folded as {allowed}")
    if opened.peft_type != MOSLORA and not (opened.peft_type == "LORA" and kind.fold_formats[0] != "peft"):
        raise ConfigError(_nothing_to_fold(opened))
    _check_place(opened, folder)
    model, processor = load_adapted(opened)
    labels, serving = _labels(model), serving_note(model)
    probe = text_probe(opened, processor, model)
    given: dict[str, Any] = {"format": chosen, "probe": probe, "allow_drift": allow_drift}
    drift = kind.write_folded(opened.model, model, processor, folder, **given)
    base = None if kind.fold_formats[0] == "peft" else opened.model.path
    write_origin(folder, base=base, **_origin(opened))
    export = _export(opened, folder, drift, num_labels=labels)
    export = replace(export, notes=tuple(note for note in (serving, _of_its_base(opened, export)) if note))
    return _noted(opened, export, name="folded")


def merge_adapter(opened: Opened, folder: Path, *, dtype: str | None, allow_drift: bool = False) -> Export:
    """Merge an adapter into a full model in `folder`: ours by `save_merged`, one of PEFT's own methods by PEFT.

    Of a projector that was trained alone, the model it was trained in is written with it.

    Raises what `save_merged` raises, and ConfigError for a run of full fine-tuning.
    """
    if opened.peft_type == FULL:
        raise ConfigError(f"{opened.adapter} is a full model already: there is nothing to merge")
    if opened.model.quantize != "none" and dtype is None:
        raise ConfigError(
            f"the base model is loaded with quantize: {opened.model.quantize}, and merging does not quantise again:"
            " choose the dtype of the merged weights with --dtype"
        )
    _check_place(opened, folder)
    model, processor = load_adapted(opened)
    labels = _labels(model)
    wanted = getattr(torch, dtype) if dtype else None
    sizes = (p.numel() * (wanted or p.dtype).itemsize for p in base_of(model).parameters())
    check_writable(folder, needed_bytes=sum(sizes))
    probe = text_probe(opened, processor, model)
    if opened.peft_type == MOSLORA:
        drift = save_merged(model, folder, dtype=wanted, probe=probe, allow_drift=allow_drift, tokenizer=processor)
    else:
        expected, adapted_dtype = probe_output(model, probe), coarsest_dtype(model)
        merged = _merged(opened, model, dtype=wanted)
        del model
        drift = write_merged(
            merged,
            folder,
            expected=expected,
            probe=probe,
            adapted_dtype=adapted_dtype,
            prove=partial(prove_copy, merged.state_dict()),
            allow_drift=allow_drift,
            tokenizer=processor,
        )
    write_origin(folder, **_origin(opened))
    return _noted(opened, _export(opened, folder, drift, num_labels=labels), name="merged")


def _origin(opened: Opened) -> dict[str, Any]:
    """What an export notes of the adapter that it is of."""
    noted = {"prompt": opened.prompt_style, "kind": opened.model.kind, "system": opened.system}
    return {**noted, "reached": reached_in(opened.adapter)}


def _merged(opened: Opened, model: Any, *, dtype: torch.dtype | None) -> Any:
    """A model with what was trained in it, by PEFT; a projector that was trained alone is in its place already."""
    if opened.peft_type == PROJECTOR_ONLY:
        return whole_model(model, dtype=dtype)
    return merged_by_peft(load_model(opened.model, opened.head), opened.adapter, dtype=dtype)


def _check_place(opened: Opened, folder: Path) -> None:
    """Refuse early a folder that is not empty, and a run whose record another process is writing."""
    check_new_folder(folder)
    if opened.run is not None:
        check_unowned(opened.run.path)


def _nothing_to_fold(opened: Opened) -> str:
    if opened.peft_type == FULL:
        return f"{opened.adapter} is a full model, without an adapter to fold"
    if opened.peft_type == PROJECTOR_ONLY:
        return f"{opened.adapter} is a projector that was trained alone, without an adapter to fold: merge it instead"
    if opened.peft_type == "LORA":
        return f"{opened.adapter} is plain LoRA already: there is nothing to fold, load it with PEFT as it is"
    return f"{opened.adapter} is a {opened.peft_type} adapter without mixers, which LoRA cannot hold: merge it instead"


def _noted(opened: Opened, export: Export, *, name: str) -> Export:
    if opened.run is None:
        return export
    home, folder = opened.run.path.absolute(), export.folder.absolute()
    with opened.run.changing_record() as record:
        record.artifacts[name] = str(folder.relative_to(home) if folder.is_relative_to(home) else folder)
        record.exports[name] = "; ".join(export.verdicts())
    return export
