import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from moslora.records import ComparisonRecord
from tests.processes import Program

Run = Callable[..., Result]


@pytest.fixture
def plan(tmp_path: Path, write_recipe: Callable[..., Path]) -> Path:
    """Two arms, one seed, one rate: two runs of four steps."""
    recipe = json.loads(write_recipe(training={"save_every_steps": None}).read_text())
    del recipe["seed"], recipe["training"]["learning_rate"]
    settings = {
        "recipe": recipe,
        "arms": {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}},
        "baseline": "lora",
        "seeds": [1],
        "tuning": {"learning_rates": [0.01]},
    }
    path = tmp_path / "two.yaml"
    path.write_text(json.dumps(settings))
    return path


def test_compare_prints_the_table_and_goes_on_where_it_was(moslora: Run, plan: Path, tmp_path: Path):
    result = moslora("compare", plan, "--output", tmp_path / "c")
    assert "moslora" in result.stdout
    assert "one seed cannot tell for moslora" in result.stdout
    assert result.stdout.replace("\n", " ").count("of the training runs themselves") == 1
    assert f"record  {tmp_path / 'c' / 'comparison.json'}" in result.stdout
    assert [line.partition(":")[0] for line in result.stderr.splitlines() if " of 2  " in line] == [
        "1 of 2  lora, seed 1",
        "2 of 2  moslora, seed 1",
    ]
    again = moslora("compare", plan, "--output", tmp_path / "c", "--json")
    assert json.loads(again.stdout) == json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert again.stderr.splitlines()[-1] == "2 of 2 runs were finished before"
    packed = moslora("compare", plan, "--output", tmp_path / "c", "--pack")
    assert packed.stdout.endswith(f"files of runs packed into {tmp_path / 'c' / 'runs.jsonl.gz'}\n")
    assert not [*tmp_path.rglob("answers"), *tmp_path.rglob("metrics.jsonl")]
    found = json.loads(moslora("compare", plan, "--output", tmp_path / "c", "--json").stdout)
    assert found | {"created": ""} == json.loads(again.stdout) | {"created": ""}


def test_compare_writes_to_a_folder_named_after_the_plan(
    moslora: Run, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = moslora("compare", plan, "--shard", "1/2")
    record = ComparisonRecord.load(tmp_path / "comparisons" / "two" / "comparison.json")
    assert (record.is_complete, [len(arm.runs) for arm in record.arms]) == (False, [1, 0])
    assert result.stdout.splitlines()[-1] == "not complete: start the same command again to do what is missing"
    refused = moslora("compare", plan, "--pack", exit_code=2)
    assert "comparisons/two is not complete: start the same command without --pack" in refused.stderr


def test_a_dry_run_writes_nothing_but_its_output(
    moslora: Run, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    result = moslora("compare", plan, "--dry-run")
    assert "0 runs to choose learning rates and 2 that count: about " in result.stdout
    head, *arms = result.stdout.splitlines()[:3]
    assert head.startswith("arm      rank  tuning runs  runs  steps  s / step  memory GB")
    assert [arm.split()[:5] for arm in arms] == [["lora", "4", "0", "1", "4"], ["moslora", "4", "0", "1", "4"]]
    found = json.loads(moslora("compare", plan, "--dry-run", "--json").stdout)
    assert [arm["steps"] for arm in found["arms"]] == [4, 4]
    assert sorted(tmp_path.rglob("*")) == before


def test_list_and_show_print_plans_that_can_be_used(moslora: Run, tmp_path: Path):
    listed = json.loads(moslora("compare", "--list", "--json").stdout)
    assert "quick" in [plan["name"] for plan in listed]
    shown = moslora("compare", "--list").stdout
    assert "table4-small" in shown
    (tmp_path / "mine.yaml").write_text(moslora("compare", "quick", "--show").stdout)
    changed = yaml.safe_load(moslora("compare", tmp_path / "mine.yaml", "--show", "--set", "seeds=[7]").stdout)
    assert (changed["name"], changed["seeds"]) == ("quick", [7])


def test_mistakes_are_one_line(refused: Callable[..., str], plan: Path):
    assert refused("compare").startswith("compare needs a plan: give a name of `moslora compare --list`")
    assert refused("compare", "quikc").startswith("unknown plan 'quikc'; did you mean 'quick'?")
    assert refused("compare", plan, "--shard", "3/2").startswith("--shard '3/2' is not a share of the runs")
    assert "did you mean 'seeds'" in refused("compare", plan, "--set", "sedes=[1]")


def test_control_c_saves_the_run_and_says_how_to_go_on(plan: Path, tmp_path: Path, start: Callable[..., Program]):
    command = ["compare", str(plan), "--output", str(tmp_path / "c"), "--set", "recipe.training.max_steps=4000"]
    command += ["--set", "recipe.training.save_every_steps=3"]
    program = start(*command)
    program.reach(lambda: list(tmp_path.glob("c/runs/lora-seed1/checkpoints/*/trainer_state.json")))
    program.send(signal.SIGINT)
    assert (program.finish(), program.stdout) == (130, "")
    last = program.stderr.splitlines()[-1]
    assert last.startswith("interrupted: stopped after step ")
    assert last.endswith(f"which is saved; to resume: moslora {' '.join(command)}")
    assert json.loads((tmp_path / "c/runs/lora-seed1/run.json").read_text())["status"] == "interrupted"
