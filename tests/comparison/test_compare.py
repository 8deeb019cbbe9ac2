import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moslora.comparison.compare import collect, run_comparison
from moslora.comparison.plan import Plan, load_plan, parse_plan
from moslora.comparison.sharding import Shard
from moslora.errors import ConfigError, DataError
from moslora.records import ComparisonRecord, RunRecord
from moslora.training import language
from tests.processes import Program

BuildPlan = Callable[..., Plan]


HOLD = """
import sys
from moslora.runs.ownership import owned
with owned('{folder}'):
    print("held", flush=True)
    sys.stdin.read()
"""


def numbers(record: ComparisonRecord) -> dict[str, Any]:
    """All that two comparisons of one plan must agree on: everything but time, memory and when."""
    measured = {"train_seconds": None, "peak_memory_bytes": None}
    arms = [arm.model_copy(update=measured) for arm in record.arms]
    return record.model_copy(update={"arms": arms}).model_dump(exclude={"created", "notes"})


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def recipe_folder(tmp_path_factory: pytest.TempPathFactory, recipe_in: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    recipe = json.loads(recipe_in(folder, training={"max_steps": 30, "save_every_steps": 3}).read_text())
    del recipe["seed"], recipe["training"]["learning_rate"]
    settings = {
        "recipe": recipe,
        "arms": {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}},
        "baseline": "lora",
        "seeds": [1, 2],
        "tuning": {"learning_rates": [0.01, 0.1], "validation_samples": 4},
    }
    (folder / "plan.yaml").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def plan(recipe_folder: Path) -> Plan:
    return load_plan(recipe_folder / "plan.yaml")


@pytest.fixture(scope="module")
def whole(recipe_folder: Path, plan: Plan) -> tuple[ComparisonRecord, Path, list[str]]:
    """A comparison that nobody disturbs, its folder, and the lines it said."""
    lines: list[str] = []
    return run_comparison(plan, recipe_folder / "whole", report=lines.append), recipe_folder / "whole", lines


Whole = tuple[ComparisonRecord, Path, list[str]]


def test_a_comparison_ends_with_a_table_of_all_arms(whole: Whole, plan: Plan):
    record, folder, lines = whole
    assert ComparisonRecord.load(folder / "comparison.json") == record
    assert record.is_complete
    assert [(arm.arm, len(arm.tasks["average"].per_seed)) for arm in record.arms] == [("lora", 2), ("moslora", 2)]
    assert [(d.arm, d.baseline, d.seeds) for d in record.differences if d.task == "average"] == [("moslora", "lora", 2)]
    assert parse_plan(record.plan, source="record") == plan
    assert len(lines) == 8
    assert lines[0].startswith("1 of 8  lora, rate 0.01, tuning: validation loss ")
    assert " left)" in lines[0]
    assert lines[7].startswith("8 of 8  moslora, seed 2: everyday ")
    assert "left" not in lines[7]


def test_the_rate_of_the_lowest_validation_loss_is_taken(whole: Whole):
    record, folder, _ = whole
    for arm in record.arms:
        tried = {r.learning_rate: r.validation_loss for r in record.tuning if r.arm == arm.arm}
        assert arm.learning_rate == min(tried, key=lambda rate: tried[rate] or 0.0)
        assert [r.learning_rate for r in record.tuning if r.arm == arm.arm and r.is_chosen] == [arm.learning_rate]
        trained = RunRecord.load(folder / arm.runs["1"] / "run.json").recipe["training"]["learning_rate"]
        assert trained == arm.learning_rate


def test_little_is_kept_on_the_disk(whole: Whole):
    _, folder, _ = whole
    kept = files(folder)
    assert {"plan.yaml", "comparison.json", "table.md", "table.csv", "table.tex"} <= kept
    assert "runs/moslora-seed1/adapter/adapter_model.safetensors" in kept
    assert "runs/moslora-seed1/adapter.json" in kept
    assert not [name for name in kept if "checkpoint" in name]
    assert {name for name in kept if name.startswith("tuning/lora-lr0.1/")} == {
        f"tuning/lora-lr0.1/{name}"
        for name in ("run.json", "metrics.jsonl", "recipe.yaml", "sample.txt", "validation.jsonl")
    }


def test_tuning_never_sees_the_test(whole: Whole):
    _, folder, _ = whole
    records = [RunRecord.load(path) for path in folder.glob("tuning/*/run.json")]
    assert len(records) == 4
    assert not any(record.evaluations for record in records)
    assert {record.seed for record in records} == {0}
    assert {record.steps for record in records} == {30}


def test_a_finished_comparison_repeats_nothing(whole: Whole, plan: Plan):
    record, folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*/run.json")}
    lines: list[str] = []
    again = run_comparison(plan, folder, report=lines.append)
    assert lines == ["8 of 8 runs were finished before"]
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*/run.json")} == before
    assert numbers(again) == numbers(record)


def test_a_killed_comparison_goes_on_to_the_same_table(
    whole: Whole, plan: Plan, recipe_folder: Path, tmp_path: Path, start: Callable[..., Program]
):
    folder = tmp_path / "killed"
    program = start("compare", recipe_folder / "plan.yaml", "--output", folder)
    program.reach(lambda: list(folder.glob("runs/moslora-seed1/checkpoints/*/trainer_state.json")))
    program.send(signal.SIGKILL)
    assert program.finish() == -signal.SIGKILL
    assert RunRecord.load(folder / "runs/moslora-seed1/run.json").status == "running"
    assert not (folder / "comparison.json").exists()
    lines: list[str] = []
    record = run_comparison(plan, folder, report=lines.append)
    assert lines[0] == "5 of 8 runs were finished before"
    assert len(lines) == 4
    assert numbers(record) == numbers(whole[0])
    for arm in record.arms:
        for run in arm.runs.values():
            name = f"{run}/adapter/adapter_model.safetensors"
            assert (folder / name).read_bytes() == (whole[1] / name).read_bytes()


def test_shards_together_give_the_table_of_one_process(whole: Whole, plan: Plan, tmp_path: Path):
    lines: list[str] = []
    first = run_comparison(plan, tmp_path / "c", shard=Shard(1, 2), report=lines.append)
    assert not first.is_complete
    assert lines[-1] == "4 of 4  moslora, seed 2: learning rate 0.1 not tried yet; skipped"
    assert "lora: no runs yet, learning rate 0.1 not tried yet" in first.notes
    second = run_comparison(plan, tmp_path / "c", shard=Shard(2, 2))
    assert [sorted(arm.runs) for arm in second.arms] == [["2"], ["1"]]
    assert "lora: seed 1 not run yet" in second.notes
    last = run_comparison(plan, tmp_path / "c", shard=Shard(1, 2))
    assert last.is_complete
    assert numbers(last) == numbers(whole[0])


def test_a_run_that_another_process_is_at_is_left_to_it(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning={"learning_rates": [0.01]}, seeds=[1])
    (tmp_path / "c" / "runs").mkdir(parents=True)
    lines: list[str] = []
    holding = HOLD.format(folder=tmp_path / "c" / "runs" / "lora-seed1")
    with subprocess.Popen([sys.executable, "-c", holding], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        record = run_comparison(plan, tmp_path / "c", report=lines.append)
        other.communicate()
    in_use = f"the run {tmp_path / 'c/runs/lora-seed1'} is in use by process {other.pid} on "
    assert lines[0].startswith(f"1 of 2  lora, seed 1: {in_use}")
    assert lines[0].endswith("; skipped")
    guessing = "everyday: no arm is shown to do better than guessing (25%): nothing to compare yet"
    assert (record.is_complete, record.notes) == (False, [guessing, "lora: seed 1 not run yet"])
    assert run_comparison(plan, tmp_path / "c").is_complete


def test_one_failed_run_is_reported_and_tried_again(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning={"learning_rates": [0.01]})
    blocked = tmp_path / "c" / "runs" / "moslora-seed1"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    lines: list[str] = []
    record = run_comparison(plan, tmp_path / "c", report=lines.append)
    _, moslora = record.arms
    reason = f"OutputError: {blocked} is a file, a run needs a folder; give another folder with --output"
    assert moslora.failed == {"1": reason}
    assert (list(moslora.runs), moslora.cannot, record.is_complete) == (["2"], None, False)
    assert lines[1].startswith(f"2 of 4  moslora, seed 1: failed: {reason}  (")
    blocked.unlink()
    again = run_comparison(plan, tmp_path / "c")
    assert (again.is_complete, again.arms[1].failed) == (True, {})
    assert not blocked.with_name("moslora-seed1.failed").exists()


def test_a_run_that_killed_its_process_comes_after_the_others(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning={"learning_rates": [0.01, 0.1], "validation_samples": 4}, seeds=[1])
    killed = tmp_path / "c" / "tuning" / ".lora-lr0.1.begun"  # what a kill leaves
    killed.parent.mkdir(parents=True)
    killed.touch()
    lines: list[str] = []
    record = run_comparison(plan, tmp_path / "c", report=lines.append)
    order = [line.split("  ")[1].partition(":")[0] for line in lines]
    first = ["lora, rate 0.01, tuning", "moslora, rate 0.01, tuning", "moslora, rate 0.1, tuning", "moslora, seed 1"]
    assert order == [*first, "lora, rate 0.1, tuning", "lora, seed 1"]
    assert record.is_complete
    assert not list(tmp_path.glob("c/*/.*.begun"))


def test_data_that_cannot_be_had_are_refused_before_the_folder_is_the_plans(
    tiny_settings: dict[str, Any], tmp_path: Path
):
    tiny_settings["recipe"]["data"]["train"] = "missing.jsonl"
    with pytest.raises(DataError, match=r"missing\.jsonl"):
        run_comparison(parse_plan(tiny_settings, source="plan tiny"), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_an_arm_that_the_model_cannot_carry_does_not_stop_the_rest(tiny_plan: BuildPlan, tmp_path: Path):
    arms = {"lora": {"method": "lora"}, "wrong": {"method": "moslora", "target_modules": ["queery"]}}
    record = run_comparison(tiny_plan(arms=arms, seeds=[1]), tmp_path / "c")
    lora, wrong = record.arms
    assert "average" in lora.tasks
    assert wrong.tasks == {}
    assert wrong.cannot is not None
    assert "queery" in wrong.cannot
    assert record.is_complete  # nothing is missing that starting again would do
    assert "queery" in (tmp_path / "c" / "table.md").read_text()


def test_a_rate_that_diverges_is_never_chosen_nor_tried_again(tiny_settings: dict[str, Any], tmp_path: Path):
    rates = {"learning_rates": [0.01, 3e37], "validation_samples": 4, "of": {"moslora": [2.9e37, 3e37]}}
    tiny_settings["recipe"]["training"]["max_steps"] = 8
    plan = parse_plan(tiny_settings | {"tuning": rates, "seeds": [1]}, source="plan tiny")
    record = run_comparison(plan, tmp_path / "c")
    lora, moslora = record.arms
    assert lora.learning_rate == 0.01
    assert [(r.validation_loss is None, r.is_chosen) for r in record.tuning][:2] == [(False, True), (True, False)]
    assert "lora diverged at the learning rate 3e+37" in record.notes
    assert moslora.cannot == "training diverged at every learning rate tried (2.9e+37, 3e+37)"
    lines: list[str] = []
    run_comparison(plan, tmp_path / "c", report=lines.append)
    assert lines == [
        "5 of 6 runs were finished before",
        "6 of 6  moslora, seed 1: training diverged at every learning rate tried (2.9e+37, 3e+37); skipped",
    ]


def test_a_changed_plan_is_refused_with_the_changed_key(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning={"learning_rates": [0.01]}, seeds=[1])
    run_comparison(plan, tmp_path / "c")
    before = {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        run_comparison(tiny_plan(tuning={"learning_rates": [0.02]}, seeds=[1]), tmp_path / "c")
    assert str(caught.value) == (
        f"{tmp_path / 'c'} was started with another plan (tuning.learning_rates: tuning.learning_rates was [0.01], is"
        f" [0.02]): resume it with its own ({tmp_path / 'c' / 'plan.yaml'}), or give another folder with --output"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "c").rglob("*") if path.is_file()} == before


def test_a_run_of_other_settings_in_the_folder_is_not_counted(tiny_plan: BuildPlan, tmp_path: Path):
    plan = tiny_plan(tuning={"learning_rates": [0.01]}, seeds=[1])
    run_comparison(plan, tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "runs" / "moslora-seed1")
    shutil.copytree(tmp_path / "c" / "runs" / "lora-seed1", tmp_path / "c" / "runs" / "moslora-seed1")
    record = collect(plan, tmp_path / "c")
    assert record.arms[1].failed == {
        "1": f"{tmp_path / 'c/runs/moslora-seed1'} holds a run with other settings: remove it"
    }


def test_a_run_done_under_another_name_counts(tiny_plan: BuildPlan, tmp_path: Path):
    run_comparison(tiny_plan(tuning={"learning_rates": [0.01]}, seeds=[1]), tmp_path / "all")
    plan = tiny_plan(tuning={"learning_rates": [0.01]}, seeds=[1], fractions=[0.5, 1.0])
    for arm in ("lora", "moslora"):
        shutil.copytree(tmp_path / "all/runs" / f"{arm}-seed1", tmp_path / "shares/runs" / f"{arm}-100pct-seed1")
    rows = {row.arm: row for row in collect(plan, tmp_path / "shares").arms}
    assert {label: list(row.runs) for label, row in rows.items()} == {
        "lora 50%": [], "moslora 50%": [], "lora 100%": ["1"], "moslora 100%": ["1"],
    }  # fmt: skip
    assert not rows["lora 100%"].failed


def test_the_order_of_the_samples_depends_on_the_seed_alone(
    tiny_plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batches: list[list[list[int]]] = []

    def noting(batch: Any, **options: Any) -> Any:
        batches.append([example["input_ids"] for example in batch])
        return original(batch, **options)

    original = language.collate
    monkeypatch.setattr(language, "collate", noting)
    run_comparison(tiny_plan(tuning={"learning_rates": [0.01]}), tmp_path / "c")
    lora_1, moslora_1, lora_2, moslora_2 = (batches[4 * run : 4 * run + 4] for run in range(4))
    assert len(batches) == 16
    assert lora_1 == moslora_1
    assert lora_2 == moslora_2
    assert lora_1 != lora_2
