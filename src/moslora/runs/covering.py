"""What a run's adapter covers of its base, as a record and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from moslora.adapter.coverage import Coverage, coverage, kinds
from moslora.adapter.experts import layers_replaced
from moslora.adapter.part_coverage import coverage_by_part
from moslora.records import CoverageRecord, PartRecord


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


def part_records(
    model: Any, parts: Mapping[str, str], *, dead: Mapping[str, Sequence[str]] | None = None
) -> list[PartRecord] | None:
    """What is adapted and trained in each part; None for a model of one part.

    `dead` names, by part, the modules that no gradient reached, as far as that was looked at.
    """
    rows = coverage_by_part(model, parts)
    found = {part: [*names] for part, names in (dead or {}).items()}
    return [PartRecord(**row.to_dict(), dead=found.get(row.part)) for row in rows] or None


def dead_notes(parts: Sequence[PartRecord]) -> list[str]:
    """The modules that are trained and that no gradient reaches, in a sentence for each part that has such."""
    return [
        f"no gradient reached {len(part.dead)} trained modules of the {part.part} part ({part.dead[0]} first)"
        for part in parts
        if part.dead
    ]


def replaced_notes(adapted: Any, found: Coverage) -> list[str]:
    """The layers that PEFT leaves out since it took their names for the experts', as a note; empty without such."""
    layers = layers_replaced(found, getattr(adapted, "peft_config", {}).get("default"))
    if not layers:
        return []
    return [
        f"not adapted: {', '.join(layers)}, although target_modules names them: PEFT takes these names for the experts"
    ]
