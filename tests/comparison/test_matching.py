from collections.abc import Callable

from moslora.comparison.matching import matched_arms, matching_notes
from moslora.comparison.plan import Plan
from moslora.records import ArmResult
from moslora.runs.counting import trainable_parameters

ARMS = {
    "lora": {"method": "lora", "r": 16, "lora_alpha": 32},
    "moslora": {"method": "moslora"},
    "ts-mixing": {"method": "ts-mixing"},
    "full": {"method": "full"},
}


def test_ranks_are_matched_to_the_parameters_of_the_baseline(tiny_plan: Callable[..., Plan]):
    plan = tiny_plan(arms=ARMS, match_parameters=True)
    lora, moslora, butterfly, full = matched_arms(plan)
    model = plan.recipe.model
    target = trainable_parameters(model, lora.method, lora.options)
    assert target == 16 * 2 * ((64 + 64) + (64 + 32))  # q and v of two layers
    gaps = []
    for rank in (moslora.rank - 1, moslora.rank, moslora.rank + 1):
        count = rank * 2 * ((64 + 64) + (64 + 32)) + 4 * rank**2
        gaps.append(abs(count - target))
    assert gaps[1] == min(gaps)
    assert (moslora.options["r"], moslora.options["lora_alpha"]) == (moslora.rank, 2 * moslora.rank)
    assert (butterfly.rank, full.rank) == (16, None)


def test_ranks_stay_where_matching_is_not_asked_for(tiny_plan: Callable[..., Plan]):
    assert [arm.rank for arm in matched_arms(tiny_plan(arms=ARMS))] == [16, 4, 4, None]


def test_a_rank_that_changes_nothing_stays(tiny_plan: Callable[..., Plan]):
    arms = {"lora": {"method": "lora", "r": 32}, "lokr": {"method": "lokr"}}
    _, lokr = matched_arms(tiny_plan(arms=arms, match_parameters=True))
    assert lokr.rank == 4


def test_an_arm_that_no_rank_makes_alike_is_told(tiny_plan: Callable[..., Plan]):
    def row(arm: str, trainable: int) -> ArmResult:
        return ArmResult(arm=arm, method=arm, trainable=trainable)

    rows = [row("lora", 1000), row("moslora", 1049), row("full", 20000)]
    pairs = dict.fromkeys(("lora", "moslora", "full"), "lora")
    wanted = ["full trains 20,000 parameters, lora 1,000: no rank tried comes closer"]
    assert matching_notes(tiny_plan(match_parameters=True), rows, pairs) == wanted
    assert matching_notes(tiny_plan(), rows, pairs) == []
