import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from moslora.errors import CheckpointError, ConfigError, OutputError
from moslora.records import RunRecord
from moslora.runs.folder import RunFolder


@pytest.fixture
def old_run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "old")
    RunRecord(recipe={"name": "demo"}, seed=1).save(folder.record_path)
    folder.adapter.mkdir()
    (folder.adapter / "adapter_config.json").write_text("{}")
    return folder


def contents(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def test_a_run_knows_where_its_files_lie():
    folder = RunFolder(Path("runs/demo"))
    assert [
        str(path.relative_to("runs/demo"))
        for path in (
            folder.record_path,
            folder.metrics_path,
            folder.recipe_path,
            folder.adapter,
            folder.checkpoints,
            folder.answers,
        )
    ] == ["run.json", "metrics.jsonl", "recipe.yaml", "adapter", "checkpoints", "answers"]


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path):
    folder = RunFolder.create(tmp_path / "a" / "b" / "c")
    assert folder.path.is_dir()
    assert contents(folder.path) == []


def test_an_empty_folder_is_taken(tmp_path: Path):
    assert RunFolder.create(tmp_path).path == tmp_path


def test_what_a_kill_left_of_the_first_file_is_nothing(tmp_path: Path):
    (tmp_path / ".run.json.0123abcd.tmp").touch()
    assert RunFolder.create(tmp_path).path == tmp_path
    (tmp_path / "notes.tmp").touch()
    with pytest.raises(OutputError, match="is not empty"):
        RunFolder.create(tmp_path)


def test_checking_leaves_no_trace(tmp_path: Path):
    RunFolder.check(tmp_path / "a" / "b")
    assert contents(tmp_path) == []


def test_an_old_run_is_kept_unless_it_is_resumed_or_overwritten(old_run: RunFolder):
    before = contents(old_run.path)
    with pytest.raises(OutputError) as caught:
        RunFolder.create(old_run.path)
    assert str(caught.value) == (
        f"the folder {old_run.path} is not empty; continue with --resume, start over with --overwrite, "
        "or give another folder with --output"
    )
    assert contents(old_run.path) == before


def test_a_folder_that_is_no_run_is_neither_resumed_nor_overwritten(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not empty; give another folder with --output"):
        RunFolder.create(tmp_path)
    with pytest.raises(OutputError, match="is not a run of moslora, so --overwrite will not remove it"):
        RunFolder.create(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match=r"there is no run to resume in .*start one without --resume"):
        RunFolder.create(tmp_path, resume=True)
    assert contents(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["{}", "[]", "3", "not json"])
def test_a_foreign_run_json_does_not_make_a_run(tmp_path: Path, content: str):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(OutputError, match="is not a run of moslora"):
        RunFolder.create(tmp_path, overwrite=True)
    assert contents(tmp_path) == ["run.json"]


def test_overwriting_removes_the_old_run(old_run: RunFolder):
    RunFolder.create(old_run.path, overwrite=True)
    assert contents(old_run.path) == []


def test_overwriting_a_folder_that_is_not_there_yet_just_makes_it(tmp_path: Path):
    assert RunFolder.create(tmp_path / "new", overwrite=True).path.is_dir()


def test_checking_an_overwrite_removes_nothing(old_run: RunFolder):
    before = contents(old_run.path)
    RunFolder.check(old_run.path, overwrite=True)
    assert contents(old_run.path) == before


def test_the_folder_one_stands_in_is_not_removed(old_run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(old_run.adapter)
    with pytest.raises(OutputError, match="a link or the folder you are in"):
        RunFolder.create(old_run.path, overwrite=True)


def test_a_link_to_a_run_is_not_removed(old_run: RunFolder, tmp_path: Path):
    (tmp_path / "link").symlink_to(old_run.path)
    with pytest.raises(OutputError, match="a link or the folder you are in"):
        RunFolder.create(tmp_path / "link", overwrite=True)
    assert old_run.record_path.exists()


def test_resuming_keeps_everything(old_run: RunFolder):
    before = contents(old_run.path)
    assert RunFolder.create(old_run.path, resume=True).record().seed == 1
    assert contents(old_run.path) == before


def test_resume_and_overwrite_together_contradict(old_run: RunFolder):
    with pytest.raises(ConfigError, match="--resume and --overwrite exclude each other"):
        RunFolder.create(old_run.path, resume=True, overwrite=True)


def test_a_file_where_the_folder_should_be_is_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OutputError, match="is a file, a run needs a folder; give another folder with --output"):
        RunFolder.create(file)
    with pytest.raises(OutputError, match=f"cannot write to {file / 'run'}: .*is a file"):
        RunFolder.create(file / "run")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files, from nobody")
def test_an_unwritable_place_is_refused():
    with pytest.raises(OutputError, match=r"cannot write to /proc/moslora-run: .*; give another folder with --output"):
        RunFolder.create("/proc/moslora-run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match=r"cannot write to .*Permission denied"):
        RunFolder.create(tmp_path / "run")


def test_a_disk_that_is_too_full_is_refused_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_100_000_000))
    with pytest.raises(OutputError) as caught:
        RunFolder.create(tmp_path / "run", needed_bytes=3_200_000_000)
    assert str(caught.value) == (
        f"{tmp_path / 'run'} needs 3.2 GB and its disk has 1.1 GB free; "
        "free some space or give another folder with --output"
    )
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_too_full_keeps_the_run_that_was_to_be_overwritten(
    old_run: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match=r"0\.0 GB free"):
        RunFolder.create(old_run.path, overwrite=True, needed_bytes=100)
    assert old_run.record_path.exists()


def test_opening_a_run_needs_its_record(old_run: RunFolder, tmp_path: Path):
    assert RunFolder.open(old_run.path).record().recipe == {"name": "demo"}
    with pytest.raises(CheckpointError, match=r"holds no run\.json, so it is not a run; give the folder"):
        RunFolder.open(old_run.adapter)
    with pytest.raises(CheckpointError, match="is not a folder, so it is not a run"):
        RunFolder.open(tmp_path / "nowhere")
