"""Judges who were added later: they move what was planned, and if results could be seen before, the results may too."""

from moslora.judging.judgements import StudyRecord


def added_notes(study: StudyRecord) -> list[str]:
    """A line on the judges who were added after the study had begun, if there are any."""
    if not study.added:
        return []
    each = study.pairs_planned * len(study.questions)
    planned = f"{study.judges_planned} judge{'s' if study.judges_planned > 1 else ''}"
    late = len(study.added_after_closing)
    seen = f"; {late} of them after judging had been closed once, when results could be seen" if late else ""
    return [
        f"Judges: {planned} planned and {len(study.added)} added after the start{seen}. The plan of"
        f" {each * study.judges_planned} judgements became one of {each * len(study.judges)}."
    ]
