"""The commands on a run that answers about pictures."""

from collections.abc import Callable
from pathlib import Path

from typer.testing import Result


def test_a_run_about_pictures_is_trained_evaluated_and_reported(
    write_vision: Callable[..., Path], moslora: Callable[..., Result], tmp_path: Path
):
    run = tmp_path / "run"
    trained = moslora("train", write_vision(), "--output", run).stdout
    head = next(line for line in trained.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "after", "commonest", "no", "picture"]
    assert (run / "answers" / "easy-vqa-examples.json").is_file()
    again = moslora("evaluate", run, "--limit", "6").stdout
    head = next(line for line in again.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "evaluated", "commonest", "no", "picture"]
    fewer = moslora("evaluate", run, "--limit", "3").stdout
    head = next(line for line in fewer.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "evaluated", "commonest"]  # the control was of other questions
    moslora("report", run)
    page = (run / "report.html").read_text()
    assert page.count("<img ") == 3
    assert "3 of the questions, evaluated again" in page
