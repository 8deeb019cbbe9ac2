"""Ranks at which the arms of a comparison train about as many parameters as its baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moslora.comparison.matrix import Arm, arms_of, at_rank
from moslora.comparison.plan import Plan
from moslora.errors import MosloraError
from moslora.records import ArmResult
from moslora.runs.counting import trainable_parameters
from moslora.runs.groups import ModelSettings

LARGEST_RANK = 1024
ALIKE = 0.05


def matched_arms(plan: Plan) -> list[Arm]:
    """The plan's arms, with `match_parameters` each at the rank that comes closest to the baseline's parameters.

    Counts on the meta device: no weights are read. Raises the errors of `moslora.errors` for a baseline that the model
    cannot carry; another arm that it cannot carry stays as it is, for its runs to say so.
    """
    arms = arms_of(plan)
    if not plan.match_parameters:
        return arms
    model = plan.recipe.model
    baseline = next(arm for arm in arms if arm.name == plan.baseline)
    target = trainable_parameters(model, baseline.method, baseline.options)
    return [arm if arm.name == plan.baseline else _matched(model, arm, target) for arm in arms]


def matching_notes(plan: Plan, rows: Sequence[ArmResult], baselines: Mapping[str, str]) -> list[str]:
    """The arms that train over 5 % more or fewer parameters than their baseline, although they were to match."""
    if not plan.match_parameters:
        return []
    counts = {row.arm: row.trainable for row in rows}
    pairs = [(arm, count, baselines[arm], counts[baselines[arm]]) for arm, count in counts.items()]
    return [
        f"{arm} trains {count:,} parameters, {baseline} {wanted:,}: no rank tried comes closer"
        for arm, count, baseline, wanted in pairs
        if count and wanted and abs(count / wanted - 1) > ALIKE
    ]


def _matched(model: ModelSettings, arm: Arm, target: int) -> Arm:
    """The arm at the rank closest to `target` parameters, found by halving.

    More rank is never fewer parameters, but in LoKr, which gives up factors from some rank on: there it may miss.
    """
    own = arm.rank and _count(model, arm, arm.rank)
    if not arm.rank or not own:
        return arm
    own_rank, counts = arm.rank, {arm.rank: own}
    low, high = 1, LARGEST_RANK
    while low <= high:
        middle = (low + high) // 2
        possible = next((rank for rank in (middle, middle + 1) if (counted := _count(model, arm, rank))), None)
        if possible is None or not (counted := _count(model, arm, possible)):
            high = middle - 1
            continue
        counts[possible] = counted
        low, high = (possible + 1, high) if counted < target else (low, middle - 1)
    rank = min(counts, key=lambda rank: (abs(counts[rank] - target), abs(rank - own_rank)))
    return replace(arm, rank=rank, options=at_rank(arm.options, rank))


def _count(model: ModelSettings, arm: Arm, rank: int) -> int | None:
    """The parameters at a rank, or None where the method refuses it (the butterfly wants an even one)."""
    try:
        return trainable_parameters(model, arm.method, at_rank(arm.options, rank))
    except MosloraError:
        return None
