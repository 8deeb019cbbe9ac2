"""Comparisons of vision-language runs on a tiny LLaVA: each arm's options by part, controls, kill and resume."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moslora.comparison.compare import collect, run_comparison
from moslora.comparison.estimate import estimate
from moslora.comparison.matching import matched_arms
from moslora.comparison.matrix import arms_of
from moslora.comparison.plan import Plan, load_plan, parse_plan
from moslora.comparison.tables import footnotes
from moslora.errors import ConfigError
from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.counting import count_methods, trainable_parameters
from moslora.runs.recipe import load_recipe
from tests.processes import Program

SHARED = ("kind", "model", "data", "training", "evaluation")
BY_PART = {
    "lora_dropout": 0.0,
    "parts": {
        "language": {"target_modules": ["q_proj", "v_proj"], "r": 8, "lora_alpha": 16, "mixer": "orthogonal"},
        "vision": {"target_modules": ["q_proj", "fc1"], "r": 4, "lora_alpha": 2},
    },
    "projector": "trained",
}
ARMS = {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}}
ONE_RATE = {"learning_rates": [0.01], "validation_samples": 3}


@pytest.fixture
def plan_settings(write_vision: Callable[..., Path]) -> dict[str, Any]:
    recipe = json.loads(write_vision(training={"save_every_steps": 1}).read_text())
    del recipe["training"]["learning_rate"]
    return {
        "name": "pictures",
        "recipe": {group: recipe[group] for group in SHARED} | {"adapter": BY_PART},
        "arms": ARMS,
        "baseline": "lora",
        "seeds": [1, 2],
        "tuning": {"learning_rates": [0.01, 0.03], "validation_samples": 3},
    }


@pytest.fixture
def build(plan_settings: dict[str, Any]) -> Callable[..., Plan]:
    def build(**changes: Any) -> Plan:
        return parse_plan(plan_settings | changes, source="plan pictures")

    return build


def test_a_method_takes_the_options_of_each_part_that_it_has(build: Callable[..., Plan]):
    lora, moslora = arms_of(build())
    assert moslora.options == BY_PART
    assert lora.options["parts"]["language"] == {"target_modules": ["q_proj", "v_proj"], "r": 8, "lora_alpha": 16}
    assert lora.options["projector"] == "trained"
    assert (lora.not_known, moslora.not_known) == (("parts.language.mixer",), ())
    assert (lora.rank, moslora.rank) == (8, 8)


def test_an_arm_lays_its_options_of_a_part_over_the_shared_ones(build: Callable[..., Plan]):
    own = {"vision": {"mixer": "kaiming", "lora_alpha": None}, "language": None}
    arms = {"lora": {"method": "lora"}, "own": {"method": "moslora", "lora_dropout": None, "parts": own}}
    _, arm = arms_of(build(arms=arms))
    vision = {"target_modules": ["q_proj", "fc1"], "r": 4, "mixer": "kaiming"}
    assert arm.options == {"parts": {"vision": vision}, "projector": "trained"}
    assert arm.rank == 4


def test_the_projector_alone_is_an_arm_too(build: Callable[..., Plan], tmp_path: Path):
    alone = {"method": "lora", "projector": "only", "parts": None, "lora_dropout": None}
    arms = {"lora": {"method": "lora"}, "alone": alone}
    plan = build(arms=arms, same_coverage=False, seeds=[1], tuning=ONE_RATE)
    arm = arms_of(plan)[1]
    assert (arm.options, arm.rank) == ({"projector": "only"}, None)
    assert estimate(plan).arms[1].problem == ""
    row = run_comparison(plan, tmp_path / "c").arms[1]
    assert (row.trainable, row.failed, list(row.tasks)) == (2 * 32 * 32 + 2 * 32, {}, ["easy-vqa", "average"])


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (
            {"method": "moslora", "parts": {"vision": {"mixer": "kaming"}}},
            "kaming",
        ),
        (
            {"method": "lora", "parts": {"vision": {"mixer": "kaiming"}}},
            "adapter.parts.vision.mixer: method 'lora' has no such option; remove it",
        ),
        (
            {"method": "lora", "parts": {"vision": {"rr": 4}}},
            "unknown option in adapter.parts.vision: 'rr'",
        ),
        ({"method": "lora", "projector": "trained?"}, "unknown adapter.projector: 'trained?'; did you mean 'trained'?"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_before_the_model_is_looked_at(
    arm: dict[str, Any], message: str, build: Callable[..., Plan]
):
    with pytest.raises(ConfigError, match=r"^plan pictures: arm x: ") as caught:
        arms_of(build(arms={"lora": {"method": "lora"}, "x": arm}))
    assert message in str(caught.value)


def test_a_rank_axis_sets_the_rank_of_every_part_and_alpha_follows(build: Callable[..., Plan]):
    made = arms_of(build(ranks=[2, 16]))
    assert [arm.label for arm in made] == ["lora r=2", "moslora r=2", "lora r=16", "moslora r=16"]
    parts = [{part: (own["r"], own["lora_alpha"]) for part, own in arm.options["parts"].items()} for arm in made[::2]]
    assert parts == [{"language": (2, 4), "vision": (2, 2)}, {"language": (16, 32), "vision": (16, 2)}]


def test_shared_ranks_and_alphas_are_those_of_each_part_at_another_rank(build: Callable[..., Plan], plan_settings: Any):
    parts = {"language": {"target_modules": "all-linear"}, "vision": {"target_modules": "all-linear", "r": 4}}
    plan_settings["recipe"]["adapter"] = {"r": 8, "lora_alpha": 16, "parts": parts}
    (lora, _) = arms_of(build(ranks=[2]))
    assert lora.options["parts"]["language"] == {"target_modules": "all-linear", "r": 2, "lora_alpha": 4}
    assert lora.options["parts"]["vision"] == {"target_modules": "all-linear", "r": 2, "lora_alpha": 16}
    assert lora.options.keys() == {"parts"}


def test_ranks_of_all_parts_are_matched_by_one_factor(build: Callable[..., Plan]):
    own = {"language": {"r": 64, "lora_alpha": 128}, "vision": {"r": 32}}
    plan = build(arms={"lora": {"method": "lora"}, "large": {"method": "moslora", "parts": own}}, match_parameters=True)
    lora, matched = matched_arms(plan)
    assert matched.rank is not None
    model = plan.recipe.model
    target = trainable_parameters(model, lora.method, lora.options)
    language, vision = matched.options["parts"]["language"], matched.options["parts"]["vision"]
    assert (language["r"], language["lora_alpha"]) == (matched.rank, 2 * matched.rank)
    assert abs(vision["r"] - language["r"] / 2) <= 1
    assert vision["lora_alpha"] == 2
    found = trainable_parameters(model, matched.method, matched.options)
    assert abs(found / target - 1) < 0.05


def test_unequal_coverage_of_a_part_is_refused(build: Callable[..., Plan], tmp_path: Path):
    own = {"vision": {"target_modules": ["q_proj"]}}
    plan = build(arms=ARMS | {"less": {"method": "moslora", "parts": own}})
    with pytest.raises(ConfigError, match=r"^the arms adapt different weights of the base: lora adapts fc1"):
        run_comparison(plan, tmp_path / "c")


def test_a_plan_is_estimated_with_all_that_its_runs_do(build: Callable[..., Plan]):
    found = estimate(build(seeds=[1]))
    assert (found.tuning_runs, found.final_runs) == (4, 2)
    assert [arm.problem for arm in found.arms] == ["", ""]
    assert all(arm.seconds and arm.seconds_per_step for arm in found.arms)


def test_a_comparison_on_pictures_ends_with_a_table_that_says_what_the_pictures_add(
    build: Callable[..., Plan], tmp_path: Path
):
    record = run_comparison(build(), tmp_path / "c")
    assert record.is_complete
    assert [(arm.arm, arm.rank, len(arm.runs)) for arm in record.arms] == [("lora", 8, 2), ("moslora", 8, 2)]
    lora, moslora = record.arms
    assert lora.trainable is not None
    assert moslora.trainable == lora.trainable + 2 * 2 * 8**2 + 2 * 2 * 4**2  # a mixer in two layers of two blocks each
    runs = [RunRecord.load(tmp_path / "c" / folder / "run.json") for folder in lora.runs.values()]
    blanked = [e.accuracy for run in runs for e in run.evaluations if e.when == "picture blanked"]
    assert lora.controls == {"picture blanked": {"easy-vqa": pytest.approx(sum(blanked) / 2)}}
    assert "lora: its method has no parts.language.mixer, which the plan sets for all arms" in record.notes
    control = f"easy-vqa, picture blanked: lora {50 * sum(blanked):.1f} %, moslora "
    assert any(note.startswith(control) for note in footnotes(record))
    assert control in (tmp_path / "c" / "table.md").read_text()
    tuning = [RunRecord.load(path) for path in (tmp_path / "c").glob("tuning/*/run.json")]
    assert len(tuning) == 4
    assert not any(run.evaluations for run in tuning)


def test_a_mixer_folded_into_each_part_at_the_start_is_plain_lora(build: Callable[..., Plan], tmp_path: Path):
    arms = {"lora": {"method": "lora"}, "control": {"method": "moslora-init-only"}}
    record = run_comparison(build(arms=arms, seeds=[1], tuning=ONE_RATE), tmp_path / "c")
    lora, control = record.arms
    assert (control.cannot, control.failed) == (None, {})
    assert control.trainable == lora.trainable
    opened = open_adapter(tmp_path / "c" / control.runs["1"])
    assert opened.peft_type == "LORA"
    model, _ = load_adapted(opened)
    assert model.peft_config["default"].modules_to_save == ["model.multi_modal_projector"]


def test_a_killed_comparison_of_pictures_goes_on_to_the_same_table(
    plan_settings: dict[str, Any], tmp_path: Path, start: Callable[..., Program]
):
    path = tmp_path / "pictures.yaml"
    path.write_text(json.dumps(plan_settings | {"seeds": [1], "tuning": ONE_RATE}))
    plan, folder = load_plan(path), tmp_path / "killed"
    whole = run_comparison(plan, tmp_path / "whole")
    program = start("compare", path, "--output", folder)
    program.reach(lambda: list(folder.glob("runs/moslora-seed1/checkpoints/*/trainer_state.json")))
    program.send(signal.SIGKILL)
    assert program.finish() == -signal.SIGKILL
    lines: list[str] = []
    record = run_comparison(plan, folder, report=lines.append)
    assert lines[0] == "1 of 2 runs were finished before"
    assert [arm.tasks for arm in record.arms] == [arm.tasks for arm in whole.arms]
    assert record.differences == whole.differences
    name = "runs/moslora-seed1/adapter/adapter_model.safetensors"
    assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert collect(plan, folder).is_complete


def test_every_method_that_a_model_of_parts_can_carry_is_counted(write_vision: Callable[..., Path]):
    parts = {"language": {"r": 4, "mixer": "orthogonal"}, "vision": {"r": 2}}
    found = {one.name: one for one in count_methods(load_recipe(write_vision(adapter={"parts": parts})))}
    lora, moslora, vera = (found[name].trainable for name in ("lora", "moslora", "vera"))
    assert lora
    assert moslora
    assert moslora == lora + 2 * 7 * 4**2 + 2 * 6 * 2**2  # mixers of two blocks in each part, one a linear layer
    assert vera is None
    assert "has no rank_pattern" in found["vera"].reason
