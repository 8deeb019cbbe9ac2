import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from moslora.records import RunRecord

Moslora = Callable[..., Result]
Refused = Callable[..., str]
WriteRecipe = Callable[..., Path]


def test_training_prints_what_came_out_and_where_it_lies(tmp_path: Path, moslora: Moslora, write_recipe: WriteRecipe):
    recipe = write_recipe(evaluation={"before": True})
    result = moslora("train", recipe, "--output", tmp_path / "k9", "--set", "training.max_steps=2")
    (note,) = [line for line in result.stdout.splitlines() if line.startswith("everyday, after: the model gives ")]
    lines = [line for line in result.stdout.splitlines() if line != note]
    assert lines[0] == "run k9: finished"
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert lines[1].split() == ["task", "when", "accuracy", "(95", "%)", "chance", "right", "scored", "by"]
    assert [line.split()[:2] for line in lines[2:4]] == [["everyday", "before"], ["everyday", "after"]]
    assert all("  25%  " in line and line.rstrip().endswith("/4  log-prob.") for line in lines[2:4])
    facts = {line[:20].rstrip(): line[20:] for line in lines[4:]}
    assert facts["trained parameters"] == "1,856 of 104,576 (1.77%), 64 of them mixers"
    assert facts["training loss"].endswith(" (mean of 2 steps)")
    assert facts["peak memory"].endswith(" GiB")
    assert facts["note"] == "16 training rows, 0 validation samples"
    assert facts["adapter"] == str(tmp_path / "k9" / "adapter")
    assert facts["record"] == str(tmp_path / "k9" / "run.json")
    assert facts["next"] == f"moslora fold {tmp_path / 'k9'}"
    remarks = result.stderr.splitlines()
    assert any(line.startswith("scoring everyday, before (log probability, 4 questions)") for line in remarks)
    assert "training 1,856 of 104,576 parameters" in remarks
    assert "Loading weights" not in result.stderr
    assert RunRecord.load(tmp_path / "k9" / "run.json").recipe["training"]["max_steps"] == 2


def test_the_result_as_json_is_the_record(tmp_path: Path, moslora: Moslora, write_recipe: WriteRecipe):
    result = moslora("train", write_recipe(evaluation={"tasks": []}), "--output", tmp_path / "run", "--json")
    assert result.stdout == (tmp_path / "run" / "run.json").read_text()
    assert json.loads(result.stdout)["status"] == "finished"


def test_the_default_folder_is_runs_and_the_recipes_name(
    tmp_path: Path, moslora: Moslora, write_recipe: WriteRecipe, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    moslora("train", write_recipe(evaluation={"tasks": []}, training={"max_steps": 1}))
    assert (tmp_path / "runs" / "tiny" / "run.json").is_file()


def test_an_existing_run_is_kept_unless_asked(
    finished: Path, moslora: Moslora, refused: Refused, write_recipe: WriteRecipe
):
    recipe = write_recipe(training={"max_steps": 1}, evaluation={"tasks": []})
    before = (finished / "run.json").read_bytes()
    assert refused("train", recipe, "--output", finished) == (
        f"the folder {finished} is not empty; continue with --resume, start over with --overwrite, "
        "or give another folder with --output"
    )
    assert (finished / "run.json").read_bytes() == before
    moslora("train", recipe, "--output", finished, "--overwrite")
    assert RunRecord.load(finished / "run.json").steps == 1
    assert not (finished / "answers").exists()


def test_resuming_a_finished_run_shows_it_again(finished: Path, moslora: Moslora):
    result = moslora("train", finished / "recipe.yaml", "--output", finished, "--resume")
    assert result.stdout.startswith("run run: finished\n")
    assert result.stderr == f"{finished} is finished; nothing to do\n"


def test_resuming_with_other_settings_is_refused_with_the_command_that_resumes(
    finished: Path, moslora: Moslora, refused: Refused
):
    message = refused("train", finished / "recipe.yaml", "--output", finished, "--resume", "--set", "seed=5")
    assert message.startswith(
        f"{finished} was started with other settings (seed was 3, is 5): resume it with its own: `"
    )
    program, *advised = shlex.split(message.split("`")[1])
    assert program == "moslora"
    assert moslora(*advised).stderr == f"{finished} is finished; nothing to do\n"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.learning_rat=1", "training.learning_rat is not a setting; did you mean 'learning_rate'?"),
        ("adapter.method=moslra", "unknown method 'moslra'; did you mean 'moslora'?"),
        ("adapter.mixer=kaimin", "unknown mixer 'kaimin'; did you mean 'kaiming'?"),
        ("adapter.target_modules=[q_prj]", "target_modules: 'q_prj' matches no module of the model; did you mean"),
        ("evaluation.tasks=[evryday]", "unknown task 'evryday'; did you mean 'everyday'?"),
        ("training.trackers=[tensorbord]", "did you mean 'tensorboard'?"),
        ("data.train=nowhere.jsonl", "nowhere.jsonl: no such file"),
        ("model.path=/nowhere/model", "model.path: there is no folder /nowhere/model"),
        ("model.path=nobody/nothing", "model.path 'nobody/nothing' "),
        ("model.attn_implementation=flsh", "model.attn_implementation 'flsh' does not work here"),
    ],
)
def test_a_mistake_in_a_recipe_is_one_line_before_anything_is_written(
    tmp_path: Path, refused: Refused, write_recipe: WriteRecipe, setting: str, expected: str
):
    assert expected in refused("train", write_recipe(), "--output", tmp_path / "run", "--set", setting)
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_one_line(refused: Refused):
    assert refused("train", "my faq.csv") == "my faq.csv is data: `moslora init 'my faq.csv'` writes a recipe for it"
    assert refused("train", "demmo").startswith("unknown recipe 'demmo'; did you mean 'demo'?")


def test_an_unwritable_output_is_one_line(tmp_path: Path, refused: Refused, write_recipe: WriteRecipe):
    (tmp_path / "file").write_text("")
    message = refused("train", write_recipe(), "--output", tmp_path / "file" / "run")
    assert message.startswith(f"cannot write to {tmp_path / 'file' / 'run'}: ")
