"""What may be said in words: never more than the interval and the Holm-adjusted p value allow."""

from collections.abc import Iterable, Mapping, Sequence

from moslora.estimation import LEVEL
from moslora.records import ComparisonRecord, Difference

AVERAGE = "average"  # the mean over tasks, each counting alike
Doubts = Mapping[str, Sequence[str]]  # by arm: what makes the choice of its learning rate uncertain
NO_DOUBTS: Doubts = {}


def claim(difference: Difference) -> int:
    """1 if the arm is shown to be better than its baseline, -1 if worse, 0 if neither."""
    if not is_shown(difference):
        return 0
    return 1 if difference.mean > 0 else -1


def is_shown(difference: Difference) -> bool:
    """Whether the corrected p value leaves a difference shown."""
    return difference.p_adjusted is not None and difference.p_adjusted < LEVEL


def of_difference(difference: Difference, *, doubts: Doubts = NO_DOUBTS) -> str:
    """The verdict on an arm against its baseline on one task, from at least two seeds."""
    assert difference.low is not None
    assert difference.high is not None
    interval = f"{points(difference.low)} to {points(difference.high)}"
    if claim(difference):
        return _claimed(difference, doubts, note=f"; {difference.seeds} seeds")
    largest = points(max(abs(difference.low), abs(difference.high)))
    lost = f" once several arms are allowed for ({_holm(difference)})" if _is_lost_to_holm(difference) else ""
    return f"no difference shown{lost}: {interval} points; differences above {largest} are unlikely"


def of_one_seed(only_arm: int, only_baseline: int, p_value: float, *, baseline: str, units: str = "questions") -> str:
    """The verdict from one seed: none, and a description of that seed for new questions."""
    return (
        f"one seed: cannot tell ({units} right only here {only_arm}, only with {baseline} {only_baseline}; "
        f"within this seed p {p_text(p_value)})"
    )


def of_one_seed_in_parts(p_value: float) -> str:
    """The verdict from one seed on questions that may be worth a part, so that right ones cannot be counted."""
    return f"one seed: cannot tell (answers may be worth a part; within this seed p {p_text(p_value)})"


def of_loss(difference: Difference, *, doubts: Doubts = NO_DOUBTS) -> str:
    """The verdict on an arm's loss of held-out samples against its baseline's, from at least two seeds."""
    interval = _loss_range(difference)
    if is_shown(difference):
        word = "lower" if difference.mean < 0 else "higher"
        size = f"{loss_text(abs(difference.mean))} ({interval}; {difference.seeds} seeds)"
        return f"{word} than {difference.baseline} by {size}{_doubt(difference, doubts)}"
    lost = f" once several arms are allowed for ({_holm(difference)})" if _is_lost_to_holm(difference) else ""
    return f"no difference shown{lost}: {interval}"


def of_loss_of_one_seed(p_value: float) -> str:
    """The verdict from one seed: none."""
    return f"one seed: cannot tell (within this seed p {p_text(p_value)})"


def overall(record: ComparisonRecord) -> str:
    """A sentence on what is shown on the average over tasks, then on single tasks; another one on losses."""
    losses = _of_losses(record)
    if not record.tasks and losses:
        return losses
    return f"{_of_accuracies(record)} {losses}".strip()


def _of_accuracies(record: ComparisonRecord) -> str:
    average = [difference for difference in record.differences if difference.task == AVERAGE]
    compared = {difference.arm for difference in average}
    baselines = {record.baseline, *(difference.baseline for difference in average)}
    left_out = [arm.arm for arm in record.arms if arm.arm not in compared | baselines]
    if not average:
        return f"Nothing can be compared: no arm has a seed in common with {record.baseline}."
    several = [difference for difference in average if difference.seeds > 1]
    doubts = {arm.arm: arm.doubts for arm in record.arms if arm.doubts}
    shown = [d for sign in (1, -1) for d in sorted(several, key=lambda d: -abs(d.mean)) if claim(d) == sign]
    unshown = [d for d in several if not claim(d)]
    parts = [f"{d.arm} is {_claimed(d, doubts)}" for d in shown]
    if unshown:
        ranges = [f"{d.arm} ({_range(d)})" for d in unshown]
        bases = {d.baseline for d in unshown}
        against = bases.pop() if len(bases) == 1 else "its baseline"
        parts.append(f"no difference from {against} is shown for {_joined(ranges)}")
    if one_seed := [d.arm for d in average if d.seeds == 1]:
        parts.append(f"one seed cannot tell for {_joined(one_seed)}")
    if left_out:
        parts.append(f"not compared: {_joined(left_out)}")
    if len(record.tasks) > 1 and several:
        parts.append(_single_tasks(record.differences))
    parts += _reservations(record, doubts, said={arm for d in shown for arm in (d.arm, d.baseline)})
    start = "" if record.is_complete else "Not complete yet. "
    return f"{start}{_scope(record, average)}: {'; '.join(parts)}."


def _of_losses(record: ComparisonRecord) -> str:
    """What is shown of the losses of held-out samples, file by file; nothing without any."""
    by_task: dict[str, list[str]] = {}
    for difference in record.loss_differences:
        by_task.setdefault(difference.task, []).append(f"{difference.arm} {_loss_claim(difference)}")
    return " ".join(f"Loss per token on {task}: {'; '.join(found)}." for task, found in by_task.items())


def _loss_claim(difference: Difference) -> str:
    return difference.verdict if is_shown(difference) else f"against {difference.baseline}, {difference.verdict}"


def loss_text(value: float) -> str:
    """A loss, or a difference of losses, in nats per token."""
    return f"{value:.4f}".replace("-0.0000", "0.0000")


def _loss_range(difference: Difference) -> str:
    return f"{loss_text(difference.low or 0)} to {loss_text(difference.high or 0)}"


def points(share: float) -> str:
    """A share as percentage points with one decimal; what would look like 0 keeps a second one."""
    text = f"{100 * share:.1f}"
    return text if float(text) else f"{100 * share:.2f}".replace("-0.00", "0.0").replace("0.00", "0.0")


def p_text(p_value: float | None) -> str:
    """A p value in two digits."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}"


def _is_lost_to_holm(difference: Difference) -> bool:
    """Whether its own p value would show a difference that the corrected one does not (its interval leaves out 0)."""
    return not claim(difference) and difference.p_value is not None and difference.p_value < LEVEL


def _holm(difference: Difference) -> str:
    return f"Holm p {p_text(difference.p_adjusted)}"


def _range(difference: Difference) -> str:
    corrected = f", {_holm(difference)}" if _is_lost_to_holm(difference) else ""
    return f"{points(difference.low or 0)} to {points(difference.high or 0)} points{corrected}"


def _claimed(difference: Difference, doubts: Doubts, *, note: str = "") -> str:
    low, high = sorted([abs(difference.low or 0), abs(difference.high or 0)])
    word = "better" if difference.mean > 0 else "worse"
    size = f"{points(abs(difference.mean))} points ({points(low)} to {points(high)}{note})"
    return f"{word} than {difference.baseline} by {size}{_doubt(difference, doubts)}"


def _doubt(difference: Difference, doubts: Doubts) -> str:
    of_rates = [f"{arm}: {_joined(doubts[arm])}" for arm in (difference.arm, difference.baseline) if doubts.get(arm)]
    return f", which may be the learning rate's doing ({'; '.join(of_rates)})" if of_rates else ""


def _reservations(record: ComparisonRecord, doubts: Doubts, *, said: set[str]) -> list[str]:
    """What limits the rest of the sentence: other learning rates in doubt, and seeds that diverged."""
    others = [f"{arm} ({_joined(found)})" for arm, found in doubts.items() if arm not in said]
    diverged = [f"{arm.arm} (seed {_joined(arm.diverged)})" for arm in record.arms if arm.diverged]
    return [
        *([f"learning rates in doubt: {', '.join(others)}"] if others else []),
        *([f"diverged, and counted as guessing: {', '.join(diverged)}"] if diverged else []),
    ]


def _scope(record: ComparisonRecord, average: Iterable[Difference]) -> str:
    counts = [difference.seeds for difference in average]
    fewest, most = min(counts), max(counts)
    seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
    tasks = record.tasks
    where = f"on the average of {len(tasks)} tasks" if len(tasks) > 1 else f"on {tasks[0]}"
    share = record.plan.get("tuning", {}).get("steps_share", 1)
    rates = f", at learning rates chosen after {100 * share:g} % of the steps" if record.tuning and share < 1 else ""
    return f"Over {seeds}, {where}{rates}"


def _single_tasks(differences: Iterable[Difference]) -> str:
    found: dict[int, dict[str, list[str]]] = {1: {}, -1: {}}
    for difference in differences:
        if difference.task != AVERAGE and (sign := claim(difference)):
            found[sign].setdefault(difference.arm, []).append(difference.task)
    texts = []
    for sign, word in ((1, "better"), (-1, "worse")):
        arms = [f"{arm} ({', '.join(tasks)})" for arm, tasks in found[sign].items()]
        texts += [f"{word}: {_joined(arms)}"] if arms else []
    return f"on single tasks {', '.join(texts)}" if texts else "on no single task is a difference shown"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
