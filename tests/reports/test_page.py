import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from moslora.errors import CheckpointError, OutputError
from moslora.records import (
    AdapterPictures,
    ArmResult,
    ComparisonRecord,
    Cost,
    LayerPicture,
    LossRecord,
    RunRecord,
    Scored,
    TaskResult,
)
from moslora.reports.comparison_tables import memory_of
from moslora.reports.page import make_report, write_adapter_pictures, write_report
from tests.reports.conftest import write_run

WriteComparison = Callable[..., Path]


def sections(sources: list[Path]) -> dict[str, str]:
    """The HTML of every section, by name."""
    parts = make_report(sources).html().split("<section id=")[1:]
    return {part.split('"')[1]: part for part in parts}


def test_a_comparison_shows_every_section(write_comparison: WriteComparison):
    found = sections([write_comparison()])
    names = ["results", "accuracy", "differences", "cost", "fraction", "learning", "inside", "answers", "limits"]
    assert [*found] == [f"c1-{name}" for name in [*names, "settings"]]
    assert "57.5 to 62.5" in found["c1-results"]
    assert "does not load beside 4-bit weights" in found["c1-results"]
    assert "+8.0" in found["c1-differences"]
    assert "better than lora here" in found["c1-differences"]
    assert "Differences from the baseline" in found["c1-differences"]  # two: each share of the data has its own
    assert "percentage points above its baseline" in found["c1-differences"]
    assert "better than lora 50% here" in found["c1-differences"]
    assert "moslora, seed 1" in found["c1-inside"]
    assert "dora, seed 4, failed: training diverged (loss nan)" in found["c1-limits"]
    assert "Costs were measured on an idle machine." in found["c1-limits"]
    assert "name: table4-small" in found["c1-settings"]


def test_a_run_shows_its_accuracy_before_and_after(run_folder: Path):
    html = make_report([run_folder]).html()
    html = html.replace("\N{NO-BREAK SPACE}", " ")
    interval = "(95 % interval 52.4 to 75.8)"
    assert f"<strong>65.0 %</strong> of 60 questions of everyday right {interval}, 28.3 % before training" in html
    assert "; guessing gets 25 %." in html
    assert [*sections([run_folder])] == [
        f"runs-{name}" for name in ("results", "accuracy", "learning", "inside", "answers", "limits", "settings")
    ]


def test_a_run_whose_answers_are_worth_parts_says_what_its_accuracy_is(run_folder: Path):
    record = RunRecord.load(run_folder / "run.json")
    for found in record.evaluations:
        found.scored = Scored(rule="yes_no", is_counted=False, units=60, answers=120)
    record.evaluations[-1].unread = 7
    record.save(run_folder / "run.json")
    html = make_report([run_folder]).html().replace("\N{NO-BREAK SPACE}", " ")
    assert "<strong>65.0 %</strong> of the credit of 60 questions of everyday (95 % interval 52.4 to 75.8)" in html
    limits = sections([run_folder])["runs-limits"]
    note = "everyday: accuracy is the mean credit (0 to 1) of 60 units of 120 answers, by the rule yes_no."
    assert limits.count(note) == 1
    assert "everyday, after: nothing could be read from 7 of 120 answers; they count as wrong." in limits


def test_an_accuracy_of_answers_that_a_model_would_not_give_is_doubted_at_once(run_folder: Path):
    record = RunRecord.load(run_folder / "run.json")
    doubt = "The model does not answer in these words, so this says little."
    assert doubt not in make_report([run_folder]).html()
    for one in record.evaluations:
        one.label_share = 0.001
    record.save(run_folder / "run.json")
    assert doubt in make_report([run_folder]).html()


def test_a_run_that_was_killed_at_once_still_has_a_page(run_folder: Path):
    for name in ("adapter.json", "metrics.jsonl"):
        (run_folder / name).unlink()
    record = (run_folder / "run.json").read_text()
    (run_folder / "run.json").write_text(record.replace('"finished"', '"running"'))  # as one that was killed leaves it
    found = sections([run_folder])
    assert "runs-inside" not in found
    assert "runs-learning" not in found
    assert "demo is interrupted (step 150)." in found["runs-limits"]


def test_a_run_on_own_data_leads_with_the_perplexity_of_its_validation_data(run_folder: Path):
    record = RunRecord.load(run_folder / "run.json")
    record.evaluations, record.validation_loss = [], 1.25
    record.save(run_folder / "run.json")
    (run_folder / "metrics.jsonl").write_text('{"step": 150, "loss": 1.5}\n')
    html = make_report([run_folder]).html()
    assert ("<strong>3.49</strong> perplexity on the validation data after 150 steps (loss 1.250 per token).") in html
    assert "1.250<small>perplexity 3.49</small>" in html
    found = sections([run_folder])
    assert "runs-accuracy" not in found
    assert "<details" not in found["runs-learning"]  # nothing else shows how training went
    assert {"Training loss", "Validation loss"} <= {text.strip("<>/ ") for text in re.split(r"[<>]", html)}


def test_held_out_samples_are_what_a_run_without_questions_leads_with(run_folder: Path):
    record = RunRecord.load(run_folder / "run.json")
    held = {"task": "mine", "low": 0.9, "high": 1.1, "samples": 20, "tokens": 400}
    record.losses = [
        LossRecord(when="before", loss=2.0, perplexity=7.39, **held),
        LossRecord(when="after", loss=1.0, perplexity=2.72, **held),
    ]
    record.evaluations = []
    record.save(run_folder / "run.json")
    html = make_report([run_folder]).html()
    told = "perplexity on 20 held-out samples of mine (loss 1.000 per token), 7.39 before training."
    assert f"<strong>2.72</strong> {told}" in html
    assert "1.000<small class=range>0.900 to 1.100</small>" in html


def test_runs_beside_one_another_are_not_ranked(run_folder: Path):
    write_run(run_folder.parent / "other", method="lora", share=0.5)
    html = make_report([run_folder, run_folder.parent / "other"]).html().replace("\N{NO-BREAK SPACE}", " ")
    told = "of 60 questions of everyday right (demo 65.0, other 33.3). Single runs differ by chance too"
    assert f"<strong>33.3 to 65.0 %</strong> {told}" in html


def test_a_comparison_leads_with_how_many_arms_are_shown_to_differ(write_comparison: WriteComparison):
    folder = write_comparison()
    lead = make_report([folder]).chapters[0]
    assert lead.number == "3 of 4 arms"
    assert lead.summary == (
        "are shown to be better than their baseline on everyday (moslora, dora, moslora 50%), for 1 no difference is"
        " shown."
    )
    record = ComparisonRecord.load(folder / "comparison.json")
    record.differences, record.is_complete = record.differences[:1], False
    record.arms[1].doubts = ["0.003 is the highest rate tried"]
    record.save(folder / "comparison.json")
    lead = make_report([folder]).chapters[0]
    assert lead.number == "+8.0\N{NO-BREAK SPACE}points"
    assert lead.summary == (
        "moslora is above lora on everyday, +4.0 to +12.0 (95 % interval, 3 seeds): a difference is shown. Better"
        " learning rates might change that for moslora. The comparison is not complete."
    )


def test_one_seed_is_said_to_show_nothing(write_comparison: WriteComparison):
    assert "its place may be luck" in sections([write_comparison(seeds=(1,))])["c1-limits"]


def test_text_from_records_is_text_in_the_page(write_comparison: WriteComparison):
    folder = write_comparison()
    record = ComparisonRecord.load(folder / "comparison.json")
    evil = '<script>alert("x")</script> a$b_$'
    record.arms[1].arm = record.differences[0].arm = evil
    record.verdict = record.notes[0] = evil
    record.plan["name"] = "<img src=x>"
    record.save(folder / "comparison.json")
    html = make_report([folder]).html()
    assert html.count("<script") == 1  # the page's own
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert "a$b_$" in html


def test_the_same_records_give_the_same_page(run_folder: Path):
    assert make_report([run_folder]).html() == make_report([run_folder]).html()


def test_plots_are_also_written_as_files(run_folder: Path, tmp_path: Path):
    written = write_report([run_folder], tmp_path / "report.html", plots=tmp_path / "plots")
    assert written[0] == tmp_path / "report.html"
    images = {path.name for path in (tmp_path / "plots").iterdir()}
    assert {"runs-loss.png", "runs-loss.svg", "runs-adapter0-mixers.png"} <= images
    assert len(written) == len(images) + 1
    with Image.open(tmp_path / "plots" / "runs-loss.png") as image:
        assert image.width > 1000
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert b"var(--" not in (tmp_path / "plots" / "runs-loss.svg").read_bytes()


def test_no_file_is_replaced_unasked(run_folder: Path, tmp_path: Path):
    page, plots = tmp_path / "report.html", tmp_path / "plots"
    page.write_text("mine")
    with pytest.raises(OutputError, match=r"report.html exists; replace it with --overwrite"):
        write_report([run_folder], page)
    assert page.read_text() == "mine"
    plots.mkdir()
    (plots / "note").touch()
    with pytest.raises(OutputError, match="is not empty"):
        write_report([run_folder], tmp_path / "new.html", plots=plots)
    assert not (tmp_path / "new.html").exists()
    write_report([run_folder], page, plots=plots, overwrite=True)
    assert page.read_text().startswith("<!doctype html>")
    assert (plots / "note").exists()


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(
        CheckpointError, match=r"holds no run.json, no comparison.json and no study.sqlite3; give folders that"
    ):
        make_report([tmp_path])
    with pytest.raises(CheckpointError, match="is not a folder"):
        make_report([tmp_path / "absent"])


def test_an_adapter_is_drawn_on_one_sheet(run_folder: Path, tmp_path: Path):
    pictures = AdapterPictures.load(run_folder / "adapter.json")
    for name in ("inside.png", "inside.svg"):
        write_adapter_pictures(pictures, tmp_path / name)
    with Image.open(tmp_path / "inside.png") as image:
        assert image.width > 2300  # two columns of 420 points at 200 dots an inch
    text = (tmp_path / "inside.svg").read_text()
    assert text.count("<svg") == 6  # the sheet and its five drawings
    with pytest.raises(OutputError, match="exists"):
        write_adapter_pictures(pictures, tmp_path / "inside.png")
    with pytest.raises(OutputError, match=r"inside.pdf does not end in .png or .svg"):
        write_adapter_pictures(pictures, tmp_path / "inside.pdf")
    with pytest.raises(OutputError, match="method 'loha'"):
        write_adapter_pictures(AdapterPictures(method="loha", layers=[]), tmp_path / "none.png")


def test_pages_stay_small_for_large_adapters(run_folder: Path):
    numbers = [[(row - column) / 64 for column in range(64)] for row in range(64)]
    values = [0.9**index for index in range(64)]
    layers = [
        LayerPicture(
            name=f"layers.{block}.{kind}",
            rank=64,
            update_norm=1,
            singular_values=values,
            effective_rank=20,
            mixer=numbers,
        )
        for block in range(30)
        for kind in ("q", "k", "v", "up", "down")
    ]
    AdapterPictures(method="moslora", layers=layers).save(run_folder / "adapter.json")
    html = make_report([run_folder]).html()
    assert len(html) < 1_000_000
    assert "The mixer M (one of 3 rows and columns) of every layer, from layer 0 on, 10 per row." in html


def test_memory_measured_apart_and_memory_of_runs_are_not_mixed():
    cost = Cost(seconds_per_step=1, peak_memory_bytes=5, trainable=1, steps=9)
    measured = ArmResult(arm="a", method="lora", cost=cost, peak_memory_bytes=9)
    of_runs = ArmResult(arm="b", method="dora", peak_memory_bytes=7)
    for arm in (measured, of_runs):
        arm.tasks = {"everyday": TaskResult(mean=0.5, low=None, high=None, per_seed={"1": 0.5})}
    assert memory_of([measured])(measured) == 5
    assert [memory_of([measured, of_runs])(arm) for arm in (measured, of_runs)] == [9, 7]


def test_reports_need_no_torch(run_folder: Path, tmp_path: Path):
    code = (
        "import sys; from moslora.reports.page import write_report;"
        f"write_report([{str(run_folder)!r}], {str(tmp_path / 'report.html')!r});"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert (result.stdout, result.stderr) == ("[]\n", "")
