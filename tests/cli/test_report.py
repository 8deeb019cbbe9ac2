from collections.abc import Callable
from pathlib import Path

from PIL import Image
from typer.testing import Result

from moslora.records import RunRecord

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def test_a_run_becomes_a_page_in_its_folder(finished: Path, moslora: Moslora, refused: Refused):
    page = finished / "report.html"
    assert moslora("report", finished).stdout == f"{page}\n"
    assert page.read_text().startswith("<!doctype html>")
    assert refused("report", finished) == f"{page} exists; replace it with --overwrite, or give another name"
    assert moslora("report", finished, "--overwrite").exit_code == 0


def test_a_run_that_is_not_finished_is_said_to_be_so(finished: Path, moslora: Moslora):
    assert moslora("report", finished).stderr == ""
    record = RunRecord.load(finished / "run.json")
    record.status = "failed"
    record.save(finished / "run.json")
    result = moslora("report", finished, "--overwrite")
    steps = f"step {record.steps} of {record.steps}"
    assert result.stderr == f"run has failed ({steps}): the page shows what it has\n"
    assert f"run has failed ({steps})." in (finished / "report.html").read_text()


def test_plots_go_to_a_folder_of_their_own(finished: Path, moslora: Moslora, tmp_path: Path):
    result = moslora("report", finished, "--output", tmp_path / "page.html", "--plots", tmp_path / "plots")
    images = [*(tmp_path / "plots").iterdir()]
    assert result.stderr == f"{len(images)} plots in {tmp_path / 'plots'}\n"
    assert {path.suffix for path in images} == {".png", ".svg"}


def test_a_folder_without_records_is_refused(tmp_path: Path, refused: Refused):
    assert refused("report", tmp_path) == (
        f"{tmp_path} holds no run.json, no comparison.json and no study.sqlite3; give folders that `moslora train`,"
        " `moslora compare` or `moslora judge serve` wrote"
    )
    assert not (tmp_path / "report.html").exists()


def test_an_adapter_is_drawn_alone(finished: Path, moslora: Moslora, refused: Refused, tmp_path: Path):
    for source, name in ((finished, "run.png"), (finished / "adapter", "adapter.png")):
        assert moslora("inspect", source, "--plot", tmp_path / name).stdout == f"{tmp_path / name}\n"
        with Image.open(tmp_path / name) as image:
            assert image.width > 2000
    assert "run.png exists" in refused("inspect", finished, "--plot", tmp_path / "run.png")
    assert (
        refused("inspect", finished, "--plot", "x.pdf") == "x.pdf does not end in .png or .svg; give a name that does"
    )


def test_only_trained_adapters_are_drawn(refused: Refused, finished: Path, tmp_path: Path):
    assert refused("inspect", "demo", "--plot", tmp_path / "x.png") == (
        "--plot draws a trained adapter, and demo is not a folder; give a run's or an adapter's"
    )
    assert refused("inspect", finished, "--plot", tmp_path / "x.png", "--json") == (
        "--plot only draws, --json says what to print: leave one of them out"
    )
