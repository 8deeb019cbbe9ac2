"""What `results` holds still loads, and its numbers and sentences are those that the code computes today."""

import shutil
from pathlib import Path

import pytest

from moslora.comparison.compare import collect
from moslora.comparison.plan import changes, load_plan, parse_plan
from moslora.records import ComparisonRecord, RunRecord

RESULTS = Path(__file__).parents[1] / "results"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/comparison.json"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_stored_comparison_comes_to_the_same_numbers_and_sentences(folder: Path, tmp_path: Path):
    stored = ComparisonRecord.load(folder / "comparison.json")
    plan = load_plan(folder / "plan.yaml")
    assert changes(parse_plan(stored.plan, source="record"), plan) == {}
    copy = shutil.copytree(folder, tmp_path / folder.name)
    found = collect(plan, copy)
    told = {"verdict", "notes", "chance", "groups", "is_complete", "baseline", "tuning"}
    assert found.model_dump(include=told) == stored.model_dump(include=told)
    for now, then in zip(found.arms, stored.arms, strict=True):
        assert now.model_dump(exclude={"tasks"}) == then.model_dump(exclude={"tasks"})
        assert [*now.tasks] == [*then.tasks]
        for task, result in now.tasks.items():
            same = then.tasks[task]
            assert (result.mean, result.low, result.high) == pytest.approx((same.mean, same.low, same.high))
    for now, then in zip(found.differences, stored.differences, strict=True):
        numbers = now.mean, now.low, now.high, now.p_adjusted
        assert numbers == pytest.approx((then.mean, then.low, then.high, then.p_adjusted))
        assert now.verdict == then.verdict
    assert (copy / "table.md").read_text() == (folder / "table.md").read_text()


def test_records_of_former_runs_load():
    for path in RESULTS.glob("*/*/*/run.json"):
        assert RunRecord.load(path).status == "finished"


def test_there_are_stored_comparisons():
    assert len(FOLDERS) >= 5
