"""Lines that are printed to be copied: each is put into a shell as it stands, with paths that need quotes."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from moslora.records import RunRecord

Moslora = Callable[..., Result]
Refused = Callable[..., str]
NAMES = ("it's my  run/a", "-x $HOME `c`")


@pytest.fixture(params=NAMES)
def run(request: pytest.FixtureRequest, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run under a name that a shell would misread, from the folder beside it."""
    monkeypatch.chdir(tmp_path)
    folder = Path(request.param)
    folder.parent.mkdir(exist_ok=True)
    finished.rename(folder)
    return folder


def in_shell(line: str, *, then: str = "") -> None:
    """Run a printed line in a shell; `then` is more Python code for a line of Python."""
    python = shlex.quote(sys.executable)
    line = line.replace("moslora ", f"{python} -m moslora ", 1).replace("python -c ", f"{python} -c ", 1)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, (line, done.stderr)


def printed(result: Result, start: str) -> str:
    (line,) = [line for line in result.stdout.splitlines() if line.startswith(start)]
    return line.removeprefix(start).strip()


def test_the_next_step_of_a_run_and_the_lines_that_load_its_exports_are_quoted(run: Path, moslora: Moslora):
    target = f"./{run}" if str(run).startswith("-") else run
    again = moslora("train", f"./{run}/recipe.yaml", "--output", run, "--resume")
    assert shlex.split(printed(again, "next")) == ["moslora", "fold", str(target)]
    for command in ("fold", "merge"):
        in_shell(moslora(command, target).stdout.splitlines()[-1])


def test_once_folded_the_next_step_is_to_evaluate(finished: Path, moslora: Moslora):
    moslora("fold", finished)
    again = moslora("train", finished / "recipe.yaml", "--output", finished, "--resume")
    assert printed(again, "next") == f"moslora evaluate {finished}"
    moslora("evaluate", finished, "--limit", "1")


def test_the_next_step_of_a_run_without_tasks_names_one(
    tmp_path: Path, write_recipe: Callable[..., Path], moslora: Moslora
):
    recipe = write_recipe(adapter={"method": "lora"}, evaluation={"tasks": []})
    line = printed(moslora("train", recipe, "--output", tmp_path / "out"), "next")
    assert line == f"moslora evaluate {tmp_path / 'out'} --task everyday"
    moslora(*shlex.split(line)[1:], "--limit", "1")


@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_an_unfinished_run_prints_the_line_that_finishes_it(
    has_checkpoints: bool, run: Path, refused: Refused, moslora: Moslora
):
    record = RunRecord.load(run / "run.json")
    record.artifacts, record.status, record.evaluations = {}, "interrupted", []
    record.save(run / "run.json")
    target = f"./{run}" if str(run).startswith("-") else run
    if has_checkpoints:
        line = moslora("fold", target).stderr.rstrip().rpartition("; to finish it: ")[2]
    else:
        shutil.rmtree(run / "checkpoints")
        line = refused("fold", target).rpartition(" finish it with ")[2][1:-1]
    in_shell(line)
    assert RunRecord.load(run / "run.json").status == "finished"


def test_a_finished_run_whose_weights_are_gone_is_to_be_trained_again(
    tmp_path: Path, finished: Path, refused: Refused, moslora: Moslora
):
    record = RunRecord.load(finished / "run.json")
    record.artifacts = {}
    record.save(finished / "run.json")
    message = refused("fold", finished)
    line = f"moslora train {finished / 'recipe.yaml'} --output FOLDER"
    assert message == f"the weights of the run {finished} were removed: train it again with `{line}`"
    moslora(*shlex.split(line.replace("FOLDER", str(tmp_path / "again")))[1:])


def test_a_base_for_a_recipe_is_quoted(refused: Refused):
    message = refused("inspect", "demo", "--base", "my models/it's")
    option, value = shlex.split(message.rpartition("use ")[2])
    assert (option, value) == ("--set", "model.path=my models/it's")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_before_anything_is_written_starts_over(
    tmp_path: Path, write_recipe: Callable[..., Path], moslora: Moslora, monkeypatch: pytest.MonkeyPatch
):
    recipe, out = write_recipe(), tmp_path / "my run"
    with monkeypatch.context() as patched:
        patched.setattr("moslora.runs.run.plan_run", interrupt)
        result = moslora("train", recipe, "--output", out, exit_code=130)
    assert result.stderr.strip() == f"interrupted; to start over: moslora train {recipe} --output '{out}'"
    with monkeypatch.context() as patched:
        patched.setattr("moslora.runs.run.load_model", interrupt)
        result = moslora("train", recipe, "--output", out, exit_code=130)
    line = result.stderr.strip().rpartition("to resume: ")[2]
    assert line == f"moslora train {recipe} --output '{out}' --resume"
    moslora(*shlex.split(line)[1:])


def test_ctrl_c_before_an_old_run_is_overwritten_does_not_offer_to_resume_it(
    finished: Path, moslora: Moslora, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("moslora.runs.run.plan_run", interrupt)
    recipe = finished / "recipe.yaml"
    result = moslora("train", recipe, "--output", finished, "--overwrite", exit_code=130)
    assert (
        result.stderr.strip() == f"interrupted; to start over: moslora train {recipe} --output {finished} --overwrite"
    )


def test_exports_from_another_folder_find_their_base(
    tmp_path: Path, finished: Path, moslora: Moslora, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    in_shell(moslora("fold", finished).stdout.splitlines()[-1])
