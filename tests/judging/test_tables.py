import csv
import io
import json

import pytest

from moslora.judging.analysis import analyse
from moslora.judging.tables import as_json, counts_grid, csv_text, grids, notes
from tests.judging.simulated import drawn, judgement, study, written


@pytest.fixture(scope="module")
def analysis():
    subjects = ("cat", "dog")
    first = drawn(5, 16, gain=0.2, seed=1, subjects=subjects)
    second = drawn(5, 16, gain=1.0, seed=2, subjects=subjects, question="subject similarity")
    return analyse(study(first + second), draws=100)


def test_the_first_table_has_the_shape_of_table_6(analysis):
    first = grids(analysis)[0]
    assert first.title == "a against b, in percent of judgements"
    shares = ("win", "tie", "loss")
    assert first.head == ("question", *shares, "win - loss", "p, Holm", "pairs for : against", "judgements")
    assert [row[0].text for row in first.rows] == ["prompt consistency", "subject similarity"]
    for row, found in zip(first.rows, analysis.findings, strict=True):
        assert sum(float(cell.text) for cell in row[1:4]) == pytest.approx(100, abs=0.11)
        assert row[1].text == f"{100 * found.win.value:.1f}"
        assert row[4].text.startswith("+")
        assert row[7] == ("80", "5 judges, 16 pairs")


def test_single_subjects_agreement_and_judges_follow(analysis):
    names = [grid.name for grid in grids(analysis)]
    assert names == ["results", "subjects", "agreement", "judges"]
    assert {row[0].text for row in grids(analysis)[1].rows} == {"cat", "dog"}
    assert all(len(row) == len(grid.head) for grid in grids(analysis) for row in grid.rows)


def test_notes_say_what_intervals_are_for(analysis):
    text = " ".join(notes(analysis))
    assert "for new judges and new pairs like these" in text
    assert "Subjects are those chosen, not drawn" in text


def test_csv_has_a_row_for_each_question_and_subject(analysis):
    rows = list(csv.DictReader(io.StringIO(csv_text(analysis))))
    assert [(row["question"], row["subject"]) for row in rows[:3]] == [
        ("prompt consistency", ""),
        ("subject similarity", ""),
        ("prompt consistency", "cat"),
    ]
    assert float(rows[0]["win"]) == analysis.findings[0].win.value
    assert float(rows[0]["win_low"]) == analysis.findings[0].win.low
    assert float(rows[1]["low"]) == analysis.findings[1].low
    assert rows[0]["verdict"] == analysis.findings[0].verdict


def test_json_keeps_names_and_numbers(analysis):
    told = json.loads(json.dumps(as_json(analysis)))
    assert told["verdict"] == analysis.verdict
    assert told["findings"][0]["win"] == analysis.findings[0].win._asdict()
    assert told["judges"][0]["repeats"] == {"asked": 0, "same": 0, "opposite": 0}
    assert len(told["pairs"]) == 32


def test_three_methods_have_a_table_of_strengths_strongest_first():
    judgements = [
        one
        for number, (first, second) in enumerate(("ab", "ac", "bc"))
        for one in drawn(4, 10, gain=1, seed=number, first=first, second=second, left=first)
    ]
    found = analyse(study(judgements, methods=("a", "b", "c")), draws=30)
    (grid,) = [grid for grid in grids(found) if grid.name == "strengths"]
    assert [row[1].text for row in grid.rows] == ["a", "b", "c"]
    assert [row[1].text for row in grids(found)[0].rows] == ["a against b", "a against c", "b against c"]


def test_one_judge_has_no_intervals_in_the_table():
    found = analyse(study(written({"ann": "wwtl"})), draws=30)
    first = grids(found)[0].rows[0]
    assert [cell.remark for cell in first[1:5]] == [""] * 4
    assert first[5].text == "–"


def test_counts_say_nothing_of_methods():
    secret = {"first": "moslora", "second": "lora", "left": "lora"}
    judgements = written({"ann": "wwt", "ben": "l"}, **secret)
    again = judgement("ann", "p0", "first", check="swapped", **secret)
    grid = counts_grid(study([*judgements, again], is_closed=False))
    assert [[cell.text for cell in row] for row in grid.rows] == [["ann", "3", "3"], ["ben", "1", "3"]]
    assert "lora" not in str(grid)
