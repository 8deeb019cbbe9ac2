"""What each of several processes does of a comparison."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from moslora.comparison.matrix import Final, Run, arms_of, final_seeds, tuning_runs
from moslora.comparison.plan import Plan
from moslora.comparison.sharding import Shard
from moslora.errors import ConfigError


def work(plan: Plan) -> list[Run | Final]:
    arms = arms_of(plan)
    return [*tuning_runs(plan, arms), *final_seeds(plan, arms)]


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"seeds": [1, 2, 3, 4, 5], "tuning": {"learning_rates": [0.01, 0.03, 0.1], "validation_samples": 4}},
        {"seeds_of": {"moslora": [1, 2, 3, 4]}, "fractions": [0.5, 1.0], "ranks": [2, 4]},
        {"arms": {name: {"method": "lora"} for name in "abcd"}, "baseline": "a", "seeds": [1, 2, 3, 4]},
        {
            "arms": {name: {"method": "lora"} for name in "abcdef"},
            "baseline": "a",
            "tuning": {"learning_rates": [0.01]},
        },
    ],
)
def test_every_run_is_in_one_shard_and_each_arms_runs_are_in_all(
    tiny_plan: Callable[..., Plan], changes: dict[str, Any], shards: int
):
    runs = work(tiny_plan(**changes))
    parts = [Shard(number, shards).part(runs) for number in range(1, shards + 1)]
    assert sorted(runs.index(run) for part in parts for run in part) == list(range(len(runs)))
    assert all([runs.index(run) for run in part] == sorted(runs.index(run) for run in part) for part in parts)
    by_arm = [Counter((type(run), run.arm.label) for run in part) for part in parts]
    for arm in {(type(run), run.arm.label) for run in runs}:
        assert spread([found[arm] for found in by_arm]) <= 1, arm
    assert spread([len(part) for part in parts]) <= 2


@pytest.mark.parametrize("text", ["2", "0/2", "3/2", "a/b", "1/-2"])
def test_a_shard_is_one_of_so_many(text: str):
    assert Shard.parse("2/3") == Shard(2, 3)
    with pytest.raises(ConfigError) as caught:
        Shard.parse(text)
    assert str(caught.value) == f"--shard '{text}' is not a share of the runs; write for example --shard 1/2"
