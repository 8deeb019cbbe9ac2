"""Comparisons over several subjects, each learned in runs of its own: from plan to table, killed and resumed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import yaml

from moslora.comparison import estimate as estimate_module
from moslora.comparison.compare import collect, run_comparison
from moslora.comparison.cost import Measured
from moslora.comparison.estimate import estimate
from moslora.comparison.execution import keep_failure
from moslora.comparison.matrix import Run, arms_of, final_run, final_seeds, tuning_runs
from moslora.comparison.plan import Plan, load_plan, parse_plan
from moslora.comparison.rehearsal import Rehearsal
from moslora.comparison.sharding import Shard
from moslora.comparison.tables import csv_text, markdown
from moslora.comparison.tuning import doubts_of
from moslora.errors import ConfigError, DivergedError
from moslora.evaluation.scores import Answer
from moslora.records import ComparisonRecord, RunRecord
from moslora.reports.page import write_report
from moslora.runs.folder import RunFolder
from moslora.runs.run import plan_run, run_recipe
from moslora.runs.scoring import answers_path, save_answers
from tests.processes import Program

Build = Callable[..., Plan]
MEASURES = ["background", "size"]
SCENES = {"limit": 3, "seeds": 1, "steps": 2, "guidance": 1.0, "batch_size": 3, "tasks": MEASURES, "before": True}
SUBJECTS = {
    name: {"data": {"train": f"emoji:{name}"}, "evaluation": {"prompts": f"emoji:{name}"}} for name in ("fox", "castle")
}
ONE_RATE = {"learning_rates": [0.01], "validation_samples": 1}


@pytest.fixture
def settings(write_subject: Callable[..., Path]) -> dict[str, Any]:
    training = {"max_steps": 2, "save_every_steps": 1}
    recipe = yaml.safe_load(write_subject(training=training, evaluation=SCENES).read_text())
    recipe["data"] = {"resolution": 32, "validation_steps": 3}
    del recipe["training"]["learning_rate"], recipe["adapter"]["method"]
    return {
        "name": "emoji",
        "recipe": recipe,
        "subjects": SUBJECTS,
        "arms": {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}},
        "baseline": "lora",
        "seeds": [1, 2],
        "tuning": {"learning_rates": [0.01, 0.02], "validation_samples": 1},
    }


@pytest.fixture
def build(settings: dict[str, Any]) -> Build:
    def build(**changes: Any) -> Plan:
        return parse_plan(settings | changes, source="plan emoji")

    return build


def shares(folder: Path, record: ComparisonRecord, arm: str, task: str) -> dict[str, float]:
    """The share of right answers by seed, counted in the files of answers."""
    subject, _, measure = task.partition(": ")
    runs = next(one.runs for one in record.arms if one.arm == arm)
    found = {}
    for seed, place in runs.items():
        path = folder / place / subject / "answers" / f"{measure}-after-drawing.jsonl"
        found[seed] = mean(json.loads(line)["is_correct"] for line in path.read_text().splitlines())
    return found


def test_each_arm_and_seed_is_a_run_for_each_subject(build: Build):
    plan = build()
    arms = arms_of(plan)
    assert [one.folder for one in final_seeds(plan, arms)] == [
        *("runs/lora-seed1/fox", "runs/moslora-seed1/fox", "runs/lora-seed1/castle", "runs/moslora-seed1/castle"),
        *("runs/lora-seed2/fox", "runs/moslora-seed2/fox", "runs/lora-seed2/castle", "runs/moslora-seed2/castle"),
    ]
    run = final_run(plan, arms[0], seed=2, learning_rate=0.1, subject="castle")
    assert run.title == "lora, seed 2 of castle"
    assert run.recipe.name == "lora-seed2-castle"
    assert (run.recipe.data.train, run.recipe.evaluation.model_dump()["prompts"]) == ("emoji:castle", "emoji:castle")
    assert run.recipe.evaluation.model_dump()["photos"] == "emoji:castle"


def test_rates_are_tried_on_the_first_subject_alone_and_alike_for_every_arm(build: Build):
    plan = build()
    runs = tuning_runs(plan, arms_of(plan))
    assert [(run.arm.label, run.learning_rate) for run in runs] == [
        *(("lora", 0.01), ("lora", 0.02), ("moslora", 0.01), ("moslora", 0.02))
    ]
    assert {run.recipe.data.train for run in runs} == {"emoji:fox"}


def test_one_picture_of_five_can_be_set_apart_for_tuning(build: Build, tmp_path: Path):
    plan = build()
    run = tuning_runs(plan, arms_of(plan))[0]
    material = plan_run(run.recipe, RunFolder(tmp_path / "run")).material
    assert (len(material.rows), len(material.validation)) == (4, 3)  # at three places on the schedule
    assert len({*(material.validation_groups or [])}) == 1


def test_losses_on_one_picture_do_not_tell_rates_apart(build: Build, tmp_path: Path):
    plan = build()
    arms = arms_of(plan)
    runs = tuning_runs(plan, arms)
    for run, loss in zip(runs, (0.5, 0.25, 0.5, 0.25), strict=True):
        leave(run, tmp_path, right=0)
        place = RunFolder(tmp_path / run.folder)
        place.record().model_copy(update={"validation_loss": loss}).save(place.record_path)
        lines = [{"loss": loss + 0.01 * step, "tokens": 1, "group": "fox 0"} for step in range(3)]
        place.validation_path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert doubts_of(plan, arms[0], runs, folder=tmp_path) == [
        "0.02 is the highest rate tried",
        "0.02 is not told apart from 0.01 by the validation samples",
    ]
    notes = collect(plan, tmp_path).notes
    assert "learning rates are chosen on fox, the first subject, for every arm" in notes


def test_a_plan_with_subjects_reads_back_as_itself_and_the_recipe_leaves_their_settings_to_them(
    build: Build, tmp_path: Path
):
    plan = build()
    (tmp_path / "plan.yaml").write_text(plan.to_yaml())
    assert load_plan(tmp_path / "plan.yaml") == plan
    written = plan.to_dict()
    assert written["subjects"] == SUBJECTS
    assert "train" not in written["recipe"]["data"]
    assert "prompts" not in written["recipe"]["evaluation"]


def test_a_subject_can_be_taken_out_or_changed_on_the_command_line(settings: dict[str, Any], tmp_path: Path):
    path = tmp_path / "plan.yaml"
    path.write_text(json.dumps(settings))
    assert load_plan(path, ["subjects.fox=null"]).subject_names == ["castle"]
    assert load_plan(path, ["subjects.fox.data.train=emoji:rocket"]).recipe.data.train == "emoji:rocket"


def test_with_data_the_photos_of_each_subject_lie_in_the_folder_and_emoji_stay():
    plan = load_plan("subject", data="/photos")
    assert plan.recipe_of("can")["data"]["train"] == "/photos/can"
    assert plan.recipe.data.train == "/photos/cat"
    assert load_plan("subject-small", data="/photos") == load_plan("subject-small")
    with pytest.raises(ConfigError, match=r"^--data hub: pictures are not loaded from the hub"):
        load_plan("subject", data="hub")


@pytest.mark.parametrize(
    ("castle", "message"),
    [
        ({"training": {"max_steps": 9}}, "subjects.castle.training.max_steps: subjects differ in data and evaluation"),
        ({"evaluation": {"tasks": ["count"]}}, "subjects.castle.evaluation.tasks: every subject is measured alike"),
        (
            {"data": {"train": "emoji:castle"}},
            "subjects.castle and subjects.fox differ in what they set (evaluation.pr",
        ),
        ({"data": {"resolution": 64}}, "recipe.data.resolution is set by each subject: remove it from rec"),
        ({**SUBJECTS["castle"], "evaluation": {"prompts": 3}}, "subjects.castle: evaluation.prompts"),
        ({"data": "emoji:castle"}, "subjects.castle.data is 'emoji:castle' (text); allowed: a group of settings"),
        ("emoji:castle", "subjects.castle is 'emoji:castle' (text); allowed: a group of settings"),
    ],
)
def test_subjects_that_cannot_be_compared_are_refused(castle: Any, message: str, build: Build):
    with pytest.raises(ConfigError) as caught:
        build(subjects=SUBJECTS | {"castle": castle})
    assert str(caught.value).startswith(f"plan emoji: {message}")


def test_a_name_that_is_no_folder_is_refused(build: Build):
    with pytest.raises(ConfigError, match=r"subjects.*\.\./fox"):
        build(subjects={"../fox": SUBJECTS["fox"]})


def test_runs_that_learn_no_subject_have_none(tiny_settings: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        parse_plan(tiny_settings | {"subjects": SUBJECTS}, source="plan tiny")
    assert str(caught.value) == "plan tiny: subjects: runs of kind 'language' have none; remove them"


def test_an_estimate_counts_a_run_for_each_subject_and_tuning_once(build: Build, monkeypatch: pytest.MonkeyPatch):
    def play(self: Rehearsal, _model: object, _planned: object) -> None:
        self.saving, self.validating_a_sample, self.scoring = 3000.0, 10.0, 1000.0

    def measured(_recipe: object, *, after: Callable[..., None]) -> Measured:
        after(None, None)
        return Measured([1.0, 1.0], peak_memory_bytes=5, trainable=1, setup_seconds=2000.0)

    monkeypatch.setattr(Rehearsal, "play", play)
    monkeypatch.setattr(estimate_module, "measure", measured)
    found = estimate(build())
    assert (found.tuning_runs, found.final_runs) == (4, 2 * 2 * 2)
    lora = found.arms[0]
    assert (lora.problem, lora.runs, lora.learning_rates) == ("", 4, 2)
    rows = 3  # the picture set apart is tried at three places
    assert lora.seconds == 4 * (2000 + 2 + 1000 + 3000) + 2 * (2000 + 2 + rows * 10 + 3000)


def test_pictures_are_rehearsed_once_for_all_measures(build: Build, monkeypatch: pytest.MonkeyPatch):
    from moslora.runs.kinds import subject_drawing

    drawn: list[int] = []
    draw = subject_drawing.draw

    def counting(pipe: Any, requests: Any, **how: Any) -> Any:
        drawn.append(len(requests))
        return draw(pipe, requests, **how)

    monkeypatch.setattr(subject_drawing, "draw", counting)
    estimate(build(arms={"lora": {"method": "lora"}}))
    assert sum(drawn) == 2 + 3  # whether the adapter reaches a picture, and the first measure before training


def test_a_killed_comparison_goes_on_to_a_table_of_each_subject_and_the_average(
    settings: dict[str, Any], tmp_path: Path, start: Callable[..., Program]
):
    path, folder = tmp_path / "emoji.yaml", tmp_path / "c"
    path.write_text(json.dumps(settings | {"tuning": ONE_RATE}))
    plan = load_plan(path)
    _kill_within(start("compare", path, "--output", folder), folder, run="runs/moslora-seed1/fox")
    before = collect(plan, folder)
    assert not before.is_complete
    assert not any(row.runs or row.tasks for row in before.arms)  # no seed is done for both subjects
    assert "lora: seed 1 of castle, 2 of fox, 2 of castle not run yet" in before.notes
    lines: list[str] = []
    record = run_comparison(plan, folder, report=lines.append)
    assert lines[0] == "1 of 8 runs were finished before"
    assert any("lora, seed 2 of castle: background " in line for line in lines)
    assert any(note.endswith(": moslora (seed 1 of fox)") for note in record.notes)
    _check_numbers(record, folder)
    _check_what_is_said(record, folder)
    _check_the_report(folder, tmp_path / "report.html")
    alone = final_run(plan, arms_of(plan)[1], seed=1, learning_rate=0.01, subject="fox")
    run_recipe(alone.recipe, tmp_path / "alone", progress=False)
    name = "adapter/adapter_model.safetensors"
    assert (folder / alone.folder / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def _kill_within(program: Program, folder: Path, *, run: str) -> None:
    """Kill the comparison once the run has a checkpoint."""
    program.reach(lambda: list(folder.glob(f"{run}/checkpoints/*/trainer_state.json")))
    program.send(signal.SIGKILL)
    assert program.finish() == -signal.SIGKILL


def _check_numbers(record: ComparisonRecord, folder: Path) -> None:
    tasks = ["fox: background", "fox: size", "castle: background", "castle: size"]
    assert (record.is_complete, record.tasks) == (True, tasks)
    assert [one.arm for one in record.arms] == ["lora", "moslora"]
    assert record.arms[0].runs == {"1": "runs/lora-seed1", "2": "runs/lora-seed2"}
    assert not any(one.controls or one.failed or one.diverged for one in record.arms)
    for row in record.arms:
        for task in tasks:
            assert row.tasks[task].per_seed == pytest.approx(shares(folder, record, row.arm, task))
        per_seed = {seed: mean(row.tasks[task].per_seed[seed] for task in tasks) for seed in ("1", "2")}
        assert row.tasks["average"].per_seed == pytest.approx(per_seed)
    assert [found.task for found in record.differences] == [*tasks, "average"]
    for found in record.differences:
        lora, moslora = (one.tasks[found.task].mean for one in record.arms)
        assert (found.mean, found.seeds) == (pytest.approx(moslora - lora), 2)


def _check_what_is_said(record: ComparisonRecord, folder: Path) -> None:
    text = markdown(record)
    assert "question" not in text
    assert "new seeds and new pictures" in text
    assert "on the same pictures with the same seeds" in text
    assert "- background: accuracy is the share right of 3 pictures, by the rule the border's colour" in text
    assert text.count("accuracy is the share right of") == 2  # a measure is told once for all subjects
    assert "- intervals are for these 2 subjects (fox, castle), not for others\n" in text
    (note,) = (one for one in record.notes if one.startswith("from before training to real pictures, %: "))
    runs = [RunRecord.load(path) for path in folder.glob("runs/*/castle/run.json")]
    ends = [
        mean(e.accuracy for run in runs for e in run.evaluations if (e.task, e.when) == ("size", when))
        for when in ("before", "real pictures")
    ]
    assert f"castle: size {100 * ends[0]:.1f} to {100 * ends[1]:.1f}" in note
    assert "castle: size" in csv_text(record)
    assert record.verdict.startswith("Over 2 seeds, on the average of 4 tasks: ")


def _check_the_report(folder: Path, path: Path) -> None:
    write_report([folder], path)
    page = path.read_text()
    assert "fox. The same prompts and noise for every arm" in page
    assert "castle. The same prompts and noise for every arm" in page
    assert "lora and moslora, seed 1 of castle" in page
    assert "castle: size, 3 pictures: both right" in page
    assert "questions" not in page


def leave(run: Run, folder: Path, *, right: int | None) -> None:
    """What a run leaves on the disk with so many right of ten pictures of each measure; None: it failed."""
    place = folder / run.folder
    place.mkdir(parents=True)
    if right is None:
        return
    RunRecord(recipe=run.recipe.to_dict(), seed=run.seed, status="finished").save(place / "run.json")
    answers = [Answer(n, "yes", None, n < right) for n in range(10)]
    for measure in MEASURES:
        save_answers(answers_path(place / "answers", task=measure, when="after", scoring="drawing"), answers)


@pytest.fixture
def left(build: Build, tmp_path: Path) -> Callable[[Exception], ComparisonRecord]:
    """A comparison in which seed 2 of castle failed in moslora, for a reason."""

    def collected(reason: Exception) -> ComparisonRecord:
        plan = build(tuning=ONE_RATE)
        for one in final_seeds(plan, arms_of(plan)):
            run = final_run(plan, one.arm, seed=one.seed, learning_rate=0.01, subject=one.subject)
            is_odd = run.title == "moslora, seed 2 of castle"
            leave(run, tmp_path, right=None if is_odd else {"fox": 6, "castle": 8}[str(one.subject)])
            if is_odd:
                keep_failure(RunFolder(tmp_path / run.folder), reason)
        return collect(plan, tmp_path)

    return collected


def test_a_subject_that_diverged_counts_as_nothing_right_and_the_other_as_it_is(
    left: Callable[[Exception], ComparisonRecord],
):
    record = left(DivergedError("training diverged (loss nan): lower it"))
    moslora = record.arms[1]
    assert (record.is_complete, moslora.diverged, moslora.runs) == (True, ["2 of castle"], {"1": "runs/moslora-seed1"})
    assert moslora.tasks["castle: size"].per_seed == {"1": 0.8, "2": 0}
    assert moslora.tasks["fox: size"].per_seed == {"1": 0.6, "2": 0.6}
    assert moslora.tasks["average"].per_seed == pytest.approx({"1": 0.7, "2": 0.3})
    assert "- moslora: training diverged with seed 2 of castle, which counts as guessing\n" in markdown(record)
    assert "counted as guessing: moslora (seed 2 of castle)." in record.verdict


def test_a_seed_of_which_a_subject_failed_is_left_out_and_told(left: Callable[[Exception], ComparisonRecord]):
    record = left(ValueError("no room on the disk"))
    moslora = record.arms[1]
    assert (record.is_complete, moslora.failed, moslora.cannot) == (False, {"2 of castle": "no room on the disk"}, None)
    assert moslora.tasks["fox: size"].per_seed == {"1": 0.6}
    assert {found.seeds for found in record.differences} == {1}
    assert "- moslora, seed 2 of castle: failed: no room on the disk\n" in markdown(record)


def test_shards_share_the_runs_of_every_subject(build: Build):
    plan = build()
    runs = [*final_seeds(plan, arms_of(plan))]
    parts = [Shard(number, 2).part(runs) for number in (1, 2)]
    assert sorted(runs.index(run) for part in parts for run in part) == [*range(8)]
    assert [len(part) for part in parts] == [4, 4]
