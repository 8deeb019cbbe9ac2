"""What may be said in words of a study: never more than the interval and the Holm-adjusted p value allow."""

from typing import TYPE_CHECKING

from moslora.comparison.verdict import p_text, points
from moslora.estimation import LEVEL

if TYPE_CHECKING:
    from moslora.judging.analysis import Analysis, Finding
    from moslora.judging.trust import JudgeRecord

MOST_NAMED = 5  # judges
MOST_FAILED = 0.25  # of a judge's checks, above which the verdict says so


def claim(finding: "Finding") -> int:
    """1 if `first` is shown to be preferred, -1 if `second` is, 0 if neither."""
    if finding.p_adjusted is None or finding.p_adjusted >= LEVEL:
        return 0
    return 1 if finding.mean > 0 else -1


def of_finding(finding: "Finding") -> str:
    """The verdict on two methods and one question."""
    if finding.low is None or finding.high is None:
        lack = "judge" if finding.judges < 2 else finding.unit
        tested = f"; sign test p {p_text(finding.sign_p)}" if finding.units > 1 else ""
        return (
            f"one {lack}: cannot tell what other {lack}s would give"
            f" ({counted(finding.for_first, finding.unit)} for {finding.first}, {finding.for_second} for"
            f" {finding.second}{tested})"
        )
    if sign := claim(finding):
        winner, loser = (finding.first, finding.second)[::sign]
        low, high = sorted([sign * finding.low, sign * finding.high])
        return f"{winner} is preferred to {loser} by {points(abs(finding.mean))} points ({_range(low, high)})"
    is_lost = finding.p_value is not None and finding.p_value < LEVEL
    lost = f" once all comparisons are allowed for (Holm p {p_text(finding.p_adjusted)})" if is_lost else ""
    return (
        f"no difference between {finding.first} and {finding.second} is shown{lost}"
        f" ({_range(finding.low, finding.high)} points)"
    )


def overall(analysis: "Analysis") -> str:
    """One sentence on the whole study, with what limits it."""
    if not analysis.findings:
        return "Nothing can be said: no pair of two methods has been judged."
    questions = dict.fromkeys(one.question for one in analysis.findings)
    parts = [
        f"on {question}, {'; '.join(one.verdict for one in analysis.findings if one.question == question)}"
        for question in questions
    ]
    shown = [one for one in analysis.by_subject if claim(one)]
    if len(analysis.subjects) > 1:
        singles = [f"{one.subject}, {one.question}: {one.verdict}" for one in shown]
        parts += singles or ["on no single subject is a difference shown"]
    parts += reservations(analysis)
    return f"{_doubt(analysis)}{_scope(analysis)}: {'; '.join(parts)}."


def _doubt(analysis: "Analysis") -> str:
    """What is said first where most judges did not look."""
    checked = [one for one in analysis.judges if one.checks]
    careless = _careless(analysis)
    if 2 * len(careless) <= len(checked):
        return ""
    return f"{len(careless)} of {len(checked)} judges failed their attention checks, so these answers can say little. "


def _careless(analysis: "Analysis") -> list["JudgeRecord"]:
    return [one for one in analysis.judges if one.checks and one.checks_failed > MOST_FAILED * one.checks]


def reservations(analysis: "Analysis") -> list[str]:
    """What limits the verdict: missing judgements, judging reopened, checks failed, a side favoured."""
    missing = sum(one.missing for one in analysis.judges) + analysis.judges_missing * analysis.judgements_per_judge
    planned = analysis.judgements_per_judge * (len(analysis.judges) + analysis.judges_missing)
    found = [f"{missing} of {planned} planned judgements are missing"] if missing else []
    if analysis.reopened:
        found.append(
            "judging went on after it had been closed and results could be seen, so the intervals may be too narrow"
        )
    if careless := _careless(analysis):
        names = [f"{one.judge} ({one.checks_failed} of {one.checks})" for one in careless[:MOST_NAMED]]
        more = f" and {len(careless) - MOST_NAMED} more" if len(careless) > MOST_NAMED else ""
        found.append(f"attention checks failed by {', '.join(names)}{more}")
    if analysis.sides.p_value is not None and analysis.sides.p_value < LEVEL:
        side = "left" if analysis.sides.left > analysis.sides.right else "right"
        found.append(f"the {side} side was favoured (p {p_text(analysis.sides.p_value)}), which hides differences")
    return found


def counted(number: int, what: str) -> str:
    """A number of things: 1 judge, 2 judges."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _scope(analysis: "Analysis") -> str:
    judges = counted(sum(one.judgements > 0 for one in analysis.judges), "judge")
    pairs = sorted({one.pairs for one in analysis.findings})
    amount = counted(pairs[0], "pair") if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]} pairs"
    subjects = f" of {', '.join(analysis.subjects)}" if analysis.subjects else ""
    return f"Over {judges} and {amount}{subjects}"


def _range(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"
