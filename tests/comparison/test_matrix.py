from collections.abc import Callable
from typing import Any

import pytest

from moslora.comparison.matrix import arms_of, baseline_of, final_run, final_seeds, tuning_runs
from moslora.comparison.plan import Plan
from moslora.errors import ConfigError

BuildPlan = Callable[..., Plan]


def test_a_plan_becomes_tuning_runs_then_one_seed_after_another(tiny_plan: BuildPlan):
    plan = tiny_plan(seeds_of={"moslora": [1, 2, 3]})
    arms = arms_of(plan)
    assert [run.folder for run in tuning_runs(plan, arms)] == [
        "tuning/lora-lr0.01",
        "tuning/lora-lr0.1",
        "tuning/moslora-lr0.01",
        "tuning/moslora-lr0.1",
    ]
    assert [(one.arm.label, one.seed) for one in final_seeds(plan, arms)] == [
        ("lora", 1),
        ("moslora", 1),
        ("lora", 2),
        ("moslora", 2),
        ("moslora", 3),
    ]


def test_a_tuning_run_has_fewer_steps_validation_samples_and_no_test(tiny_plan: BuildPlan):
    plan = tiny_plan(tuning={"learning_rates": [0.01, 0.1], "validation_samples": 4, "steps_share": 0.5})
    tuning = tuning_runs(plan, arms_of(plan))[1]
    recipe = tuning.recipe
    assert (recipe.seed, recipe.training.learning_rate, recipe.training.max_steps) == (0, 0.1, 2)
    assert (recipe.data.validation_samples, recipe.evaluation.tasks) == (4, [])


def test_the_runs_of_a_seed_differ_in_the_method_only(tiny_plan: BuildPlan):
    plan = tiny_plan()
    lora, moslora = (final_run(plan, arm, seed=2, learning_rate=0.1).recipe.to_dict() for arm in arms_of(plan))
    assert lora.pop("name") == "lora-seed2"
    assert moslora.pop("name") == "moslora-seed2"
    assert lora.pop("adapter") | {"method": "moslora"} == moslora.pop("adapter")
    assert lora == moslora


def test_an_arm_takes_the_shared_options_its_method_has(tiny_plan: BuildPlan):
    arms = {"lora": {"method": "lora"}, "vera": {"method": "vera"}, "full": {"method": "full"}}
    lora, vera, full = arms_of(tiny_plan(arms=arms))
    assert (lora.not_known, vera.not_known) == ((), ("lora_alpha",))
    assert vera.options == {"r": 4, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
    assert (full.options, full.rank, full.not_known[0]) == ({}, None, "lora_alpha")


def test_a_rank_axis_tunes_every_rank_and_alpha_follows(tiny_plan: BuildPlan):
    arms = {"lora": {"method": "lora"}, "fixed": {"method": "moslora", "lora_alpha": 5}, "full": {"method": "full"}}
    plan = tiny_plan(arms=arms, ranks=[2, 4])
    made = arms_of(plan)
    assert [arm.label for arm in made] == ["lora r=2", "fixed r=2", "full", "lora r=4", "fixed r=4"]
    assert [arm.options.get("lora_alpha") for arm in made] == [4, 5, None, 8, 5]
    assert [arm.rank for arm in made] == [2, 2, None, 4, 4]
    assert len(tuning_runs(plan, made)) == 5 * 2
    assert [baseline_of(plan, arm, made).label for arm in made[3:]] == ["lora r=4", "lora r=4"]


def test_shares_of_the_samples_are_tuned_once_at_all_of_them(tiny_plan: BuildPlan):
    plan = tiny_plan(fractions=[0.125, 0.5])
    arms = arms_of(plan)
    assert [arm.label for arm in arms] == ["lora 12.5%", "moslora 12.5%", "lora 50%", "moslora 50%"]
    tuning = tuning_runs(plan, arms)
    assert [run.folder for run in tuning][:2] == ["tuning/lora-lr0.01", "tuning/lora-lr0.1"]
    assert {run.recipe.data.fraction for run in tuning} == {1.0}
    run = final_run(plan, arms[1], seed=1, learning_rate=0.1)
    assert (run.folder, run.recipe.data.fraction) == ("runs/moslora-12.5pct-seed1", 0.125)
    assert baseline_of(plan, arms[3], arms).label == "lora 50%"


def test_both_axes_multiply(tiny_plan: BuildPlan):
    plan = tiny_plan(ranks=[2, 4], fractions=[0.5, 1.0])
    assert [arm.label for arm in arms_of(plan)][:3] == ["lora r=2 50%", "moslora r=2 50%", "lora r=4 50%"]


def test_labels_that_differ_in_signs_only_do_not_share_a_folder(tiny_plan: BuildPlan):
    arms: dict[str, Any] = {"lora": {"method": "lora"}, "lora+": {"method": "lora+"}}
    assert [arm.slug for arm in arms_of(tiny_plan(arms=arms))] == ["lora", "lora-plus"]
    with pytest.raises(
        ConfigError, match=r"^the arms 'lora\+' and 'lora-plus' would share the folder 'lora-plus': rename one$"
    ):
        arms_of(tiny_plan(arms=arms | {"lora-plus": {"method": "lora"}}))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"method": "mosslora"}, "unknown method of arm x: 'mosslora'; did you mean 'moslora'?"),
        ({"method": "lora", "mixer": "kaiming"}, "arm x: unknown option of method 'lora' in adapter: 'mixer'"),
        ({"method": "moslora", "mixer": "kaming"}, "kaming"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_before_anything_runs(arm: dict[str, Any], message: str, tiny_plan: BuildPlan):
    plan = tiny_plan(arms={"lora": {"method": "lora"}, "x": arm})
    with pytest.raises(ConfigError) as caught:
        arms_of(plan)
    assert message in str(caught.value)


def test_a_grid_of_one_rate_needs_no_tuning(tiny_plan: BuildPlan):
    plan = tiny_plan(tuning={"learning_rates": [0.1]})
    assert tuning_runs(plan, arms_of(plan)) == []
