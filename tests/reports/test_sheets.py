"""Contact sheets in reports: what a run drew before and after training."""

from collections.abc import Callable
from pathlib import Path

from moslora.reports.page import write_report
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe


def test_a_report_shows_what_was_drawn_before_and_after(tmp_path: Path, write_subject: Callable[..., Path]):
    data = {"train": "emoji:fox", "prompt": None}
    evaluation = {"prompts": "emoji:fox", "limit": 2, "seeds": 1, "steps": 2, "tasks": ["background"], "before": True}
    run_recipe(load_recipe(write_subject(data=data, evaluation=evaluation)), tmp_path / "run", progress=False)
    assert len(list((tmp_path / "run" / "pictures" / "photos").glob("*.png"))) == 5
    page = tmp_path / "report.html"
    write_report([tmp_path / "run"], page)
    text = page.read_text(encoding="utf-8")
    assert "What is drawn" in text
    assert text.count("data:image/jpeg;base64,") == 1
