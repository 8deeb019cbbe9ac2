"""What a run's adapter covers of its base, as a record and in words."""

from typing import Any

from moslora.adapter.coverage import Coverage, coverage, kinds
from moslora.adapter.experts import layers_replaced
from moslora.records import CoverageRecord


def coverage_record(found: Coverage) -> CoverageRecord:
    """The numbers of a coverage, and the experts left out."""
    left_out = kinds(found.experts_left_out)
    return CoverageRecord(adapted=found.adapted_numbers, total=found.numbers, experts_left_out=left_out)


def describe_coverage(adapted: Any) -> tuple[CoverageRecord, list[str]]:
    """A model's coverage, and what a reader should know of it: experts that are left out, and layers in their place."""
    found = coverage(adapted)
    left_out, notes = found.experts_left_out, replaced_notes(adapted, found)
    if left_out:
        share = sum(weight.numbers for weight in left_out) / found.numbers
        notes.append(
            f"experts not adapted: {', '.join(kinds(left_out))} ({share:.0%} of the base's weights), which are bare"
            " parameters and no layers"
        )
    return coverage_record(found), notes


def replaced_notes(adapted: Any, found: Coverage) -> list[str]:
    """The layers that PEFT leaves out since it took their names for the experts', as a note; empty without such."""
    layers = layers_replaced(found, getattr(adapted, "peft_config", {}).get("default"))
    if not layers:
        return []
    return [
        f"not adapted: {', '.join(layers)}, although target_modules names them: PEFT takes these names for the experts"
    ]
