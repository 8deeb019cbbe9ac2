import os
import shutil
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from moslora.errors import OutputError
from moslora.files import check_new_folder, new_file, new_folder, write_atomically


@pytest.mark.parametrize("content", ["größer\n", b"\x00\x01"])
def test_text_and_bytes_are_written_whole(tmp_path: Path, content: str | bytes):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path):
    (tmp_path / "usual").write_text("")
    write_atomically(tmp_path / "ours", "")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_files_that_a_library_closed_to_others_are_opened_as_any_new_file(tmp_path: Path):
    (tmp_path / "usual").write_text("")
    with new_folder(tmp_path / "folder") as staged:
        (staged / "part").mkdir()
        save_file({"a": torch.zeros(1)}, staged / "part" / "closed.safetensors")
        (staged / "program").touch(mode=0o755)
    with new_file(tmp_path / "alone.safetensors") as path:
        save_file({"a": torch.zeros(1)}, path)
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    for written in (tmp_path / "folder" / "part" / "closed.safetensors", tmp_path / "alone.safetensors"):
        assert stat.S_IMODE(written.stat().st_mode) == usual
    assert stat.S_IMODE((tmp_path / "folder" / "program").stat().st_mode) & 0o700 == 0o700


def test_a_full_disk_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write .*run\.json: No space left on device; free the space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_an_interrupt_while_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.json"
    path.write_text("old")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(OutputError, match=r"cannot write .*nowhere/run\.json: No such file or directory"):
        write_atomically(tmp_path / "nowhere" / "run.json", "new")


def names(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_a_folder_appears_only_when_it_is_whole(tmp_path: Path):
    with new_folder(tmp_path / "a" / "b") as staged:
        (staged / "file").write_text("x")
        assert not (tmp_path / "a" / "b").exists()
    assert names(tmp_path) == ["a", "a/b", "a/b/file"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path):
    def fail() -> None:
        with new_folder(tmp_path / "a") as staged:
            (staged / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_a_used_folder_is_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "a").mkdir()
    check_new_folder(tmp_path / "a")
    (tmp_path / "a" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="exists and is not an empty folder: choose another one, or remove it"):
        check_new_folder(tmp_path / "a")
    with pytest.raises(OutputError, match="exists and is not an empty folder"), new_folder(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a", "a/thesis.tex"]


def test_a_new_folder_needs_room_and_a_place_that_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to .*file/a: .*file is a file; give another folder"):
        check_new_folder(tmp_path / "file" / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(OutputError, match=r"a needs 5\.0 GB and its disk has 0\.0 GB free; free some space or give"):
        check_new_folder(tmp_path / "a", needed_bytes=5_000_000_000)
    assert names(tmp_path) == ["file"]
