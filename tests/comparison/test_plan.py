from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moslora.comparison.data_folder import SMALL_TASKS
from moslora.comparison.matrix import arms_of, final_run, final_seeds, tuning_runs
from moslora.comparison.plan import Plan, changes, list_plans, load_plan, parse_plan, plan_text
from moslora.errors import ConfigError

SHIPPED = list_plans()
RUNS = {  # arms, tuning runs, runs that count
    "arc-small": (3, 9, 15),
    "figure4": (10, 6, 30),
    "subject": (4, 12, 48),
    "subject-small": (4, 12, 36),
    "figure4-small": (10, 6, 30),
    "quick": (2, 4, 4),
    "ranks": (8, 24, 24),
    "ranks-small": (6, 18, 18),
    "table1": (4, 12, 12),
    "table1-small": (4, 12, 12),
    "table3": (8, 24, 30),
    "table3-small": (8, 24, 30),
    "table4": (9, 27, 33),
    "table4-small": (18, 54, 60),
    "table5": (4, 12, 12),
    "table5-small": (4, 12, 12),
}


def test_every_paper_table_is_shipped_in_full_and_small():
    assert set(SHIPPED) == set(RUNS)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_plan_gives_its_runs_with_equal_grids_and_seeds_apart_from_tuning(name: str):
    plan = load_plan(name, data="sets")
    arms = arms_of(plan)
    tuning = tuning_runs(plan, arms)
    finals = list(final_seeds(plan, arms))
    assert (len(arms), len(tuning), len(finals)) == RUNS[name]
    assert len({len(plan.rates_for(arm)) for arm in plan.arms}) == 1
    assert all(one.seed != plan.tuning.seed for one in finals)
    runs = [final_run(plan, one.arm, seed=one.seed, learning_rate=1e-3, subject=one.subject) for one in finals]
    assert len({run.folder for run in [*tuning, *runs]}) == len(tuning) + len(runs)
    assert all(run.recipe.evaluation.tasks == plan.recipe.evaluation.tasks for run in runs)
    assert not any(run.recipe.evaluation.tasks for run in tuning)
    assert plan_text(name).startswith(f"# {SHIPPED[name]}\n")
    assert f"moslora compare {name}" in plan_text(name)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_resolved_plan_reads_back_as_itself(name: str, tmp_path: Path):
    plan = load_plan(name)
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    assert load_plan(tmp_path / "plan.yaml") == plan


def test_the_data_folder_and_settings_can_be_given(tmp_path: Path):
    plan = load_plan("arc-small", ["seeds=[7]", "arms.moslora-init-only=null"], data=tmp_path / "a: b")
    assert plan.recipe.data.folder == plan.recipe.evaluation.data == str(tmp_path / "a: b")
    assert (plan.seeds, list(plan.arms)) == ([7], ["lora", "moslora"])
    assert plan.recipe.data.train == ["ARC-Easy", "openbookqa"]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SHIPPED
        if name.startswith(("table1", "table3", "table4", "figure4", "ranks")) and name.endswith("-small")
    ],
)
def test_with_data_a_small_plan_asks_the_tasks_that_are_there_instead_of_the_built_in_ones(name: str, tmp_path: Path):
    assert load_plan(name).recipe.data.train == "everyday"
    plan = load_plan(name, ["recipe.evaluation.limit=50"], data=tmp_path)
    assert plan.recipe.data.train == plan.recipe.evaluation.tasks == SMALL_TASKS
    assert plan.recipe.data.model_dump()["longer"] == "leave_out"  # PIQA has samples of over 1,000 tokens
    assert (plan.recipe.data.together, plan.recipe.evaluation.limit) == (None, 50)
    on_hub = load_plan(name, data="hub").recipe
    assert (on_hub.data.folder, on_hub.evaluation.data, on_hub.data.train) == (None, None, SMALL_TASKS)


def test_with_data_a_plan_on_pictures_takes_conversations_pictures_and_questions_from_there(tmp_path: Path):
    recipe = load_plan("table5", data=tmp_path).recipe
    assert recipe.data.train == str(tmp_path / "llava_v1_5_mix665k.json")
    assert recipe.model_dump()["data"]["image_folder"] == str(tmp_path / "images")
    assert recipe.evaluation.data == str(tmp_path)
    built_in = load_plan("table5-small", data=tmp_path).recipe
    assert (built_in.data.train, built_in.evaluation.data) == ("easy-vqa-open", str(tmp_path))
    with pytest.raises(
        ConfigError, match=r"^--data hub: pictures are not loaded from the hub; give the folder they are in$"
    ):
        load_plan("table5", data="hub")


@pytest.mark.parametrize("name", ["table5", "table5-small"])
def test_the_arms_of_table_5_differ_in_the_mixers_of_both_parts_only(name: str):
    lora, orthogonal, kaiming, control = arms_of(load_plan(name))
    assert [arm.options.get("mixer") for arm in (lora, orthogonal, kaiming)] == [None, "orthogonal", "kaiming"]
    for arm in (orthogonal, kaiming, control):
        assert {key: value for key, value in arm.options.items() if key != "mixer"} == lora.options
    assert list(lora.options["parts"]) == ["language", "vision"]
    assert lora.options["projector"] == "trained"


def test_changes_are_named_with_both_values():
    assert changes(load_plan("quick"), load_plan("quick", ["recipe.adapter.r=8", "seeds=[1]"])) == {
        "recipe.adapter.r": (16, 8),
        "seeds": ([1, 2], [1]),
    }


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a tuning seed that is compared": (
        {"seeds": [0, 1]},
        "tuning.seed 0 is among the seeds of 'lora' ([0, 1]): learning rates must not be chosen on a run that is"
        " compared; choose another",
    ),
    "unequal grids": (
        {"tuning": {"learning_rates": [0.1, 0.2], "of": {"lora": [0.1]}}},
        "tuning.of.lora has 1 learning rates, the other arms have 2: give every arm as many, or the comparison favours"
        " the one with more",
    ),
    "a baseline that is no arm": (
        {"baseline": "lorra"},
        "unknown arm as baseline: 'lorra'; did you mean 'lora'? (allowed: lora, moslora)",
    ),
    "seeds of no arm": (
        {"seeds_of": {"mosslora": [1]}},
        "unknown arm in seeds_of: 'mosslora'; did you mean 'moslora'? (allowed: lora, moslora)",
    ),
    "no seeds": ({"seeds_of": {"lora": []}}, "seeds_of.lora is empty: give at least one seed, or take the arm out"),
    "a seed twice": ({"seeds": [1, 1]}, "seeds names a value twice: [1, 1]"),
    "an arm without a method": (
        {"arms": {"lora": {"r": 4}}},
        "arms.lora.method is missing: name the method, such as lora",
    ),
    "ranks both given and chosen": (
        {"ranks": [4], "match_parameters": True},
        "match_parameters chooses the ranks, so ranks must not be given with it",
    ),
    "an unknown key": (
        {"seed": [1]},
        "seed is not a setting; did you mean 'tuning.seed'? (allowed: name, recipe, arms, baseline, seeds, seeds_of,"
        " subjects, ranks, fractions, same_coverage, match_parameters, tuning)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_plan_that_cannot_be_fair_or_meant_is_refused(case: str, tiny_settings: dict[str, Any]):
    change, message = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        parse_plan(tiny_settings | change, source="plan p")
    assert str(caught.value) == f"plan p: {message}"


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("training", "learning_rate", 0.1, "training.learning_rate is what a plan sets by tuning.learning_rates"),
        ("data", "fraction", 0.5, "data.fraction is what a plan sets by fractions"),
        ("adapter", "method", "lora", "adapter.method: every arm names its own method; remove it"),
        ("evaluation", "tasks", [], "evaluation.tasks is empty: name what the arms are compared on"),
    ],
)
def test_what_the_plan_decides_is_not_taken_from_the_shared_recipe(
    group: str, name: str, value: Any, message: str, tiny_settings: dict[str, Any]
):
    tiny_settings["recipe"][group][name] = value
    with pytest.raises(ConfigError, match=f"^plan p: recipe: {message}"):
        parse_plan(tiny_settings, source="plan p")


def test_an_unknown_plan_is_refused_with_the_nearest_name(tmp_path: Path, plan_file: Callable[..., Path]):
    with pytest.raises(ConfigError, match=r"^unknown plan 'table4small'; did you mean 'table4-small'\? \(moslora comp"):
        load_plan("table4small")
    path = plan_file()
    with pytest.raises(ConfigError) as caught:
        load_plan(tmp_path / "tiny-plann.yaml")
    assert str(caught.value).startswith(
        f"cannot read the plan {tmp_path / 'tiny-plann.yaml'}: No such file or directory; did you mean '{path}'?"
    )


def test_a_file_without_a_name_is_named_after_itself(plan_file: Callable[..., Path]):
    assert load_plan(plan_file(name=None)).name == "tiny-plan"


def test_a_plan_is_what_it_says(tiny_plan: Callable[..., Plan]):
    plan = tiny_plan(seeds_of={"moslora": [5]}, tuning={"learning_rates": [0.1], "of": {"lora": [0.3]}})
    assert (plan.seeds_for("lora"), plan.seeds_for("moslora")) == ([1, 2], [5])
    assert (plan.rates_for("lora"), plan.rates_for("moslora")) == ([0.3], [0.1])


def test_the_plan_that_the_page_prints_is_a_plan(tmp_path: Path):
    text = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text.partition("```yml\n")[2].partition("```")[0])
    assert [arm.label for arm in arms_of(load_plan(tmp_path / "mine.yaml"))] == [
        "lora",
        "moslora",
        "orthogonal",
        "control",
    ]
