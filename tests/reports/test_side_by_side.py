"""Several runs on one page: what differs between them is shown, and only like is compared with like."""

import re
from pathlib import Path
from typing import Any

import pytest

from moslora.records import RunRecord
from moslora.reports.page import make_report
from moslora.reports.parts import Cell, Table
from tests.reports.conftest import write_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs of one method on different files, one scored in training, the other later by `moslora evaluate`."""
    for name, share in (("islands", 0.7), ("r4", 0.5)):
        write_run(tmp_path / name, share=share)
    change(tmp_path / "islands", r=16, data={"train": "data/islands.jsonl"}, epochs=7)
    change(tmp_path / "r4", r=4, data={"train": ["questions.csv", "more.csv"]}, epochs=3)
    record = RunRecord.load(tmp_path / "islands" / "run.json")
    record.evaluations = [one.model_copy(update={"when": "evaluated"}) for one in record.evaluations[1:]]
    record.save(tmp_path / "islands" / "run.json")
    answers = tmp_path / "islands" / "answers"
    (answers / "everyday-after-log_probability.jsonl").rename(answers / "everyday-evaluated-log_probability.jsonl")
    return [tmp_path / "islands", tmp_path / "r4"]


def change(folder: Path, *, r: int, data: dict[str, Any], epochs: int) -> None:
    record = RunRecord.load(folder / "run.json")
    record.recipe["adapter"] |= {"r": r, "lora_alpha": 32}
    record.recipe |= {"data": data, "training": {"epochs": epochs, "learning_rate": 1e-3}}
    record.save(folder / "run.json")


def rescored(folder: Path, when: str, **changes: Any) -> None:
    """The run's evaluations at a moment, as if otherwise asked."""
    record = RunRecord.load(folder / "run.json")
    record.evaluations = [one.model_copy(update=changes) if one.when == when else one for one in record.evaluations]
    record.save(folder / "run.json")


def results(folders: list[Path]) -> Table:
    (chapter,) = make_report(folders).chapters
    (section,) = (section for section in chapter.sections if section.name.endswith("results"))
    return next(part for part in section.parts if isinstance(part, Table))


def texts(table: Table, name: str) -> list[str]:
    place = [*table.head].index(name)
    cells = [row[place] for row in table.rows]
    return [cell.text if isinstance(cell, Cell) else cell for cell in cells]


def test_the_settings_that_differ_are_columns_in_plain_words(runs: list[Path]):
    table = results(runs)
    assert [*table.head[:3]] == ["run", "rank", "data"]
    assert texts(table, "rank") == ["16", "4"]
    assert texts(table, "data") == ["islands.jsonl", "questions.csv, more.csv"]
    assert "alpha" not in table.head  # it is the same
    assert [*results(runs[:1]).head[:2]] == ["run", "everyday, evaluated"]


def test_at_most_four_settings_are_shown(runs: list[Path]):
    record = RunRecord.load(runs[1] / "run.json")
    record.recipe["adapter"] |= {"lora_alpha": 8, "mixer": "kaiming", "lora_dropout": 0.1}
    record.recipe["training"]["learning_rate"] = 3e-4
    record.save(runs[1] / "run.json")
    table = results(runs)
    assert [*table.head[:6]] == ["run", "rank", "alpha", "learning rate", "data", "everyday, before"]


def test_what_was_evaluated_later_stands_in_the_column_after_training(runs: list[Path]):
    table = results(runs)
    assert [name for name in table.head if name.startswith("everyday")] == ["everyday, before", "everyday, after"]
    assert "–" not in texts(table, "everyday, after")
    (chapter,) = make_report(runs).chapters
    assert chapter.number.endswith("%")
    assert "The runs differ in rank and data." in chapter.summary
    assert "only islands right" in make_report(runs).html()  # answers of the two moments side by side


@pytest.mark.parametrize("changes", [{"total": 90}, {"prompt": "chat"}, {"scoring": "generation"}, {"task": "other"}])
def test_what_is_not_alike_is_not_compared(runs: list[Path], changes: dict[str, Any]):
    rescored(runs[0], "evaluated", **changes)
    table, (chapter,) = results(runs), make_report(runs).chapters
    head = [name for name in table.head if "everyday" in name or "other" in name]
    assert len(head) == 3
    assert "–" in texts(table, "everyday, after")
    assert chapter.number == ""
    assert chapter.summary.startswith("2 runs, which share no task and no validation data to be compared on: islands ")
    assert ", evaluated; r4 " in chapter.summary


def test_a_drawing_tells_two_ways_of_scoring_apart(runs: list[Path]):
    record = RunRecord.load(runs[0] / "run.json")
    (found,) = record.evaluations
    record.evaluations = [found.model_copy(update={"scoring": "generation"}), found]
    record.save(runs[0] / "run.json")
    html = make_report(runs).html()
    labels = {text for text in re.findall("[^<>]+", html) if text.startswith("islands, evaluated")}
    assert len(labels) == 2, labels  # the longer one is cut
    assert "only islands right" in html


def test_moments_stand_in_their_order_before_after_evaluated(runs: list[Path]):
    record = RunRecord.load(runs[1] / "run.json")
    before, after = record.evaluations
    record.evaluations = [after.model_copy(update={"when": "evaluated"}), after, before]
    record.save(runs[1] / "run.json")
    head = [name for name in results(runs).head if name.startswith("everyday")]
    assert head == ["everyday, before", "everyday, after", "everyday, evaluated"]  # r4 has both


def test_validation_losses_are_compared_on_the_same_data_only(runs: list[Path]):
    for folder, loss in zip(runs, (1.0, 2.0), strict=True):
        record = RunRecord.load(folder / "run.json")
        record.evaluations, record.validation_loss = [], loss
        record.save(folder / "run.json")
    (chapter,) = make_report(runs).chapters
    assert chapter.number == ""
    assert "islands has a validation loss of 1.000; r4 has a validation loss of 2.000." in chapter.summary
    for folder in runs:
        change(folder, r=4, data={"train": "same.jsonl"}, epochs=1)
    (chapter,) = make_report(runs).chapters
    assert (chapter.number, chapter.summary.split(".")[0]) == ("1.000 to 2.000", "validation loss of 2 runs")
