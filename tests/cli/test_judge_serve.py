import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs starlette and uvicorn (pip install moslora[judge])")


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for shade, name in enumerate(("ours", "theirs")):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (90 * shade, 60 * number, 0)).save(tmp_path / name / f"{number}.png")
    return [str(tmp_path / name) for name in ("ours", "theirs")]


def started(*arguments: str | Path, lines: int) -> list[str]:
    """The first lines of `moslora judge serve`, which is killed then."""
    command = [sys.executable, "-m", "moslora", "judge", "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    found = [process.stdout.readline().strip() for _ in range(lines)]
    process.kill()
    found += process.stderr.read().splitlines()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    return found


def test_the_same_command_goes_on_with_the_same_links(tmp_path: Path, folders: list[str]):
    given = [*folders, "--study", tmp_path / "study", "--question", "look: Which?", "--judge", "ann", "--judge", "ben"]
    first, again = (started(*given, lines=3) for _ in range(2))
    tokens = [[line.rpartition("/")[2] for line in found[:3]] for found in (first, again)]
    assert [line.partition(":")[0] for line in first[:3]] == ["admin", "ann", "ben"]
    assert tokens[0] == tokens[1]
    assert not any("warning" in line for line in first)


def test_an_address_that_others_reach_is_warned_of(tmp_path: Path, folders: list[str]):
    given = [*folders, "--study", tmp_path / "study", "--question", "look: Which?", "--judges", "1"]
    found = started(*given, "--host", "0.0.0.0", lines=2)
    (warning,) = (line for line in found if line.startswith("warning"))
    assert found[0].partition("/admin/")[0].removeprefix("admin: ") in warning
    assert "127.0.0.1" not in warning or "://127.0.0.1" in found[0]
    assert "the admin's to nobody" in warning


def test_a_study_that_was_begun_otherwise_is_not_gone_on_with(
    tmp_path: Path, folders: list[str], refused: Callable[..., str]
):
    study = tmp_path / "study"
    started(*folders, "--study", study, "--question", "look: Which?", lines=4)
    message = refused("judge", "serve", "--study", study, "--judges", "9")
    assert "was begun with judges 3, not 9" in message
    message = refused("judge", "serve", "--study", study, "--judge", "ann", "--question", "look: Which?")
    assert "was begun with judges ['judge 1', 'judge 2', 'judge 3'], not ['ann']" in message
    assert "begun with questions ['look']" in refused("judge", "serve", "--study", study, "--question", "x: X?")
    Image.new("RGB", (8, 8), "white").save(Path(folders[0]) / "0.png")
    message = refused("judge", "serve", *folders, "--study", study)
    assert f"{study} was begun with other answers" in message
    assert f"moslora judge serve --study {study}" in message


def test_https_in_front_is_not_warned_to_be_missing(tmp_path: Path, folders: list[str]):
    given = [*folders, "--study", tmp_path / "study", "--question", "look: Which?", "--judges", "1"]
    found = started(*given, "--url", "https://judging.example.org", lines=2)
    (warning,) = (line for line in found if line.startswith("warning"))
    assert "https://judging.example.org is open to everybody" in warning
    assert "Without https" not in warning
    assert any("Without https" in line for line in started(*given, "--url", "http://judging.example.org", lines=2))


def test_what_is_asked_and_what_is_odd_is_said_before_anybody_judges(tmp_path: Path, folders: list[str]):
    Image.new("RGB", (8, 8), (0, 0, 0)).save(Path(folders[1]) / "0.png")  # the other's answer
    (Path(folders[0]) / "shot.heic").write_bytes(b"")
    found = started(*folders, "--study", tmp_path / "study", "--question", "look: Which?", "--names", "3", lines=4)
    assert "asked about each pair: look (Which?)" in found
    assert "note: 1 pair has the same answer from both" in found
    assert any(line.startswith(f"note: {folders[0]}: 1 file is not used, the first shot.heic") for line in found)
    again = started("--study", tmp_path / "study", lines=4)
    assert "asked about each pair: look (Which?)" in again


def test_stopping_says_once_how_to_resume(tmp_path: Path, folders: list[str]):
    study = tmp_path / "study"
    command = [sys.executable, "-m", "moslora", "judge", "serve", *folders, "--study", str(study), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--question", "look: Which?"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("judge 3"):
        assert process.poll() is None
    time.sleep(0.5)  # until it serves
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    lines = [line for line in said.splitlines() if "resume" in line or "start over" in line]
    assert lines == [f"stopped; every answer is kept; to resume: moslora judge serve --study {study} --port 0"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "holds no study yet; give two folders of answers"),
        (["{a}"], "comparing needs at least two folders of answers, not 1"),
        (["{a}", "{b}"], "neither photos nor prompts to judge by; give --photos, --prompts or --question"),
        (["{a}", "{b}", "--judges", "2", "--judge", "ann"], "give one of --judges NUMBER and --judge NAME"),
        (["{a}", "{b}", "--question", "x: X?", "--url", "here"], "--url here is not the address of a site"),
        (["{a}", "{b}", "--question", "x: X?", "--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    tmp_path: Path, folders: list[str], refused: Callable[..., str], arguments: list[str], message: str
):
    named = [one.format(a=folders[0], b=folders[1]) for one in arguments]
    assert message in refused("judge", "serve", *named, "--study", tmp_path / "study")
