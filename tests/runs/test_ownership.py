"""A run belongs to one process: beside a living one nothing is resumed, overwritten or noted in its record."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from moslora.errors import InUseError
from moslora.records import RunRecord
from moslora.runs.adapters import open_adapter
from moslora.runs.exporting import fold_adapter
from moslora.runs.folder import RunFolder
from moslora.runs.language_settings import EvaluationSettings
from moslora.runs.ownership import check_unowned, owned
from moslora.runs.scoring import evaluate_adapter

HOLD = """
import sys
from moslora.runs.ownership import owned
with owned(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Another process that holds a run until it is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["resume", "overwrite", None])
def test_a_run_that_another_process_is_at_is_refused_and_left_alone(tmp_path: Path, train: Any, hold: Any, how: str):
    train("run")
    RunFolder(tmp_path / "run").record().model_copy(update={"status": "running"}).save(tmp_path / "run" / "run.json")
    process = hold(tmp_path / "run")
    before = tree(tmp_path / "run")
    with pytest.raises(InUseError) as caught:
        train("run", **({how: True} if how else {}))
    assert re.fullmatch(
        rf"the run {tmp_path / 'run'} is in use by process {process.pid} on \S+, since \d{{4}}-\d\d-\d\d [\d:+]+: wait"
        " for it, stop it, or give another folder with --output",
        str(caught.value),
    )
    assert tree(tmp_path / "run") == before


def test_a_run_begun_while_this_one_was_being_planned_is_refused(
    tmp_path: Path, train: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
):
    from moslora.runs import run

    planned = run.plan_run

    def plan_while_another_starts(*arguments: Any) -> Any:
        hold(tmp_path / "run")
        return planned(*arguments)

    monkeypatch.setattr(run, "plan_run", plan_while_another_starts)
    with pytest.raises(InUseError):
        train("run")
    assert not (tmp_path / "run").exists()


def test_a_killed_process_holds_nothing(tmp_path: Path, hold: Any):
    process = hold(tmp_path / "run")
    with pytest.raises(InUseError):
        check_unowned(tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    check_unowned(tmp_path / "run")
    with owned(tmp_path / "run"):
        assert f"process {os.getpid()} on " in (tmp_path / ".run.holder").read_text()
    assert not (tmp_path / ".run.holder").exists()


def test_a_run_is_the_same_by_another_path(tmp_path: Path, hold: Any, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    hold(tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InUseError):
        check_unowned("run")


def test_a_thread_holds_a_run_twice_and_another_not_at_all(tmp_path: Path):
    refused: list[Exception] = []

    def other() -> None:
        try:
            with owned(tmp_path / "run"):
                pass
        except InUseError as error:
            refused.append(error)

    with owned(tmp_path / "run"):
        with owned(tmp_path / "run"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    check_unowned(tmp_path / "run")


def test_a_folder_within_one_that_takes_no_files_keeps_its_lock_inside(
    tmp_path: Path, train: Any, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "run").mkdir()
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path and allowed(path, mode))
    train("run")
    train("run", overwrite=True)
    assert (tmp_path / "run" / ".lock").is_file()
    assert not (tmp_path / ".run.lock").exists()


def test_asking_leaves_no_trace(tmp_path: Path):
    check_unowned(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_numbers_are_not_added_to_the_record_of_a_run_that_goes_on(
    tmp_path: Path, train: Any, hold: Any, monkeypatch: pytest.MonkeyPatch
):
    train("run")
    opened = open_adapter(tmp_path / "run")
    hold(tmp_path / "run")
    before = tree(tmp_path / "run")
    settings = EvaluationSettings(tasks=["everyday"], limit=2)
    with pytest.raises(InUseError):
        evaluate_adapter(opened, settings, with_agreement=False, report=lambda _: None, progress=False)
    with pytest.raises(InUseError):
        fold_adapter(opened, tmp_path / "folded")
    assert tree(tmp_path / "run") == before
    assert not (tmp_path / "folded").exists()


def test_a_record_changes_only_as_a_whole(tmp_path: Path):
    run = RunFolder.create(tmp_path / "run")
    RunRecord(recipe={}, seed=1).save(run.record_path)

    def stop_half_way() -> None:
        with run.changing_record() as record:
            record.notes = ["half"]
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        stop_half_way()
    assert run.record().notes == []
    with run.changing_record() as record:
        record.notes = ["whole"]
    assert run.record().notes == ["whole"]
