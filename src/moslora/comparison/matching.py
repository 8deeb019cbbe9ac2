"""Ranks at which the arms of a comparison train about as many parameters as its baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from moslora.comparison.matrix import Arm, arms_of
from moslora.comparison.plan import Plan
from moslora.comparison.ranks import part_ranks, rank_of, scaled, with_ranks
from moslora.errors import MosloraError
from moslora.records import ArmResult
from moslora.runs.counting import trainable_parameters
from moslora.runs.groups import ModelSettings

LARGEST_RANK = 1024
ALIKE = 0.05


def matched_arms(plan: Plan) -> list[Arm]:
    """The plan's arms, with `match_parameters` each at the rank that comes closest to the baseline's parameters.

    Where a model's parts have ranks of their own, all are multiplied by one factor.
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
    """The arm at the ranks closest to `target` parameters: that of its largest part is found by halving.

    More rank is never fewer parameters, but in LoKr, which gives up factors from some rank on: there it may miss.
    """
    if not arm.rank:
        return arm
    own_ranks = part_ranks(arm.method, arm.options)
    own_rank = max(own_ranks.values())
    own = _count(model, arm, own_ranks)
    if not own:
        return arm
    counts, low, high = {own_rank: own}, 1, LARGEST_RANK
    while low <= high:
        middle = (low + high) // 2
        tried = ((rank, _count(model, arm, scaled(own_ranks, rank))) for rank in (middle, middle + 1))
        possible, counted = next(((rank, count) for rank, count in tried if count), (middle, 0))
        if not counted:
            high = middle - 1
            continue
        counts.setdefault(possible, counted)
        low, high = (possible + 1, high) if counted < target else (low, middle - 1)
    rank = min(counts, key=lambda rank: (abs(counts[rank] - target), abs(rank - own_rank)))
    options = with_ranks(arm.options, own_ranks if rank == own_rank else scaled(own_ranks, rank))
    return replace(arm, rank=rank_of(arm.method, options), options=options)


def _count(model: ModelSettings, arm: Arm, ranks: Mapping[str, int]) -> int | None:
    """The parameters at these ranks, or None where the method refuses them (the butterfly wants even ones)."""
    try:
        return trainable_parameters(model, arm.method, with_ranks(arm.options, ranks))
    except MosloraError:
        return None
