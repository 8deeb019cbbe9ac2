"""Every arm adapts the same weights, or the plan is refused with targets that make it so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moslora.comparison.compare import run_comparison
from moslora.comparison.coverage import check_coverage, coverage_notes
from moslora.comparison.estimate import estimate
from moslora.comparison.plan import Plan
from moslora.errors import ConfigError
from moslora.records import CoverageRecord

ARMS = {
    "lora": {"method": "lora"},
    "moslora": {"method": "moslora"},
    "control": {"method": "moslora-init-only"},
    "vera": {"method": "vera"},
    "full": {"method": "full"},
}
EXPERTS = "experts.down_proj, experts.gate_up_proj, gate.weight"


@pytest.fixture
def experts_plan(tiny_settings: dict[str, Any], tiny_plan: Callable[..., Plan], experts_folder: Path):
    """A plan on a mixture of experts, with changed adapter options and settings at its top."""

    def build(adapter: dict[str, Any] | None = None, **changes: Any) -> Plan:
        recipe = tiny_settings["recipe"]
        options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **(adapter or {})}
        recipe = {**recipe, "model": {"path": str(experts_folder), "dtype": "float32"}, "adapter": options}
        return tiny_plan(**{"arms": ARMS, "recipe": recipe, **changes})

    return build


def refusal(plan: Plan) -> str:
    with pytest.raises(ConfigError) as refused:
        check_coverage(plan)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_arms_that_adapt_other_weights_are_refused_with_targets_for_all(experts_plan: Callable[..., Plan]):
    said = refusal(experts_plan())
    assert f"lora adapts {EXPERTS}, which moslora does not; name targets that every arm adapts alike," in said
    advice = said.partition("recipe.adapter.target_modules=[")[2].partition("]")[0]
    assert advice == "k_proj,o_proj,q_proj,v_proj"
    check_coverage(experts_plan({"target_modules": advice.split(",")}))


def test_the_difference_is_told_whichever_arm_is_the_baseline(experts_plan: Callable[..., Plan]):
    assert f"lora adapts {EXPERTS}, which vera does not" in refusal(experts_plan(baseline="vera"))
    assert f"lora adapts {EXPERTS}, which moslora does not" in refusal(experts_plan(baseline="full"))


def test_targets_in_an_arm_and_options_that_stand_in_the_way_are_named(experts_plan: Callable[..., Plan]):
    arms = {"lora": {"method": "lora", "target_modules": ["q_proj", "k_proj"]}, "moslora": {"method": "moslora"}}
    plan = experts_plan({"exclude_modules": ["v_proj"]}, arms=arms)
    assert refusal(plan) == (
        "the arms adapt different weights of the base: moslora adapts o_proj, which lora does not; name targets that"
        " every arm adapts alike, recipe.adapter.target_modules=[k_proj,q_proj] (and remove target_modules in the arms,"
        " exclude_modules), or set same_coverage: false to compare them as they are"
    )


def test_other_trained_parts_are_a_difference_too(tiny_settings: dict[str, Any], tiny_plan: Callable[..., Plan]):
    recipe = tiny_settings["recipe"] | {"adapter": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}}
    arms = {"lora": {"method": "lora"}, "own": {"method": "moslora", "modules_to_save": ["embed_tokens"]}}
    said = refusal(tiny_plan(recipe=recipe, arms=arms))
    assert "lora adapts lm_head, which own does not and own adapts embed_tokens, which lora does not" in said
    assert "name targets that every arm adapts alike, or set same_coverage: false" in said  # no targets would help


def test_an_arm_that_cannot_be_made_is_left_to_its_runs(tiny_plan: Callable[..., Plan]):
    check_coverage(
        tiny_plan(arms={"lora": {"method": "lora"}, "wrong": {"method": "lora", "target_modules": ["queery"]}})
    )


def test_nothing_is_written_for_a_plan_that_is_refused(experts_plan: Callable[..., Plan], tmp_path: Path):
    with pytest.raises(ConfigError, match="the arms adapt different weights"):
        run_comparison(experts_plan(), tmp_path / "comparison")
    with pytest.raises(ConfigError, match="the arms adapt different weights"):
        estimate(experts_plan())
    assert not (tmp_path / "comparison").exists()


def test_a_plan_may_want_the_difference_and_the_record_says_it(experts_plan: Callable[..., Plan], tmp_path: Path):
    arms = {name: ARMS[name] for name in ("lora", "moslora")}
    tuning = {"learning_rates": [0.01], "validation_samples": 4}
    plan = experts_plan(arms=arms, same_coverage=False, seeds=[1], tuning=tuning)
    record = run_comparison(plan, tmp_path / "comparison")
    assert "the arms change different shares of the base's weights: lora 68%; moslora 10%" in record.notes
    assert (
        "experts not adapted by moslora: experts.down_proj, experts.gate_up_proj, which are bare parameters"
        in record.notes
    )


def test_equal_coverage_without_experts_needs_no_note():
    same = CoverageRecord(adapted=10, total=100)
    assert coverage_notes({"lora": same, "moslora": same, "unfinished": None}) == []
    full = CoverageRecord(adapted=100, total=100)
    assert coverage_notes({"lora": same, "moslora": same, "full": full}) == [
        "the arms change different shares of the base's weights: lora, moslora 10%; full 100%"
    ]
