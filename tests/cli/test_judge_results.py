"""`moslora judge results` and `moslora judge plan`."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from moslora.judging.study import Study
from tests.judging.founded import found, judge

Moslora = Callable[..., Result]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = found(tmp_path_factory.mktemp("closed"))
    judge(folder, method="mixed")
    return folder


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    folder = found(tmp_path)
    judge(folder, method="mixed", is_closed=False, most=3)
    return folder


def test_results_are_a_verdict_and_tables(moslora: Moslora, closed: Path):
    result = moslora("judge", "results", closed)
    first, *lines = result.stdout.splitlines()
    assert first.startswith(
        "Over 2 judges and 6 pairs: on subject similarity, mixed is preferred to plain by 100.0 points"
    )
    row = next(line for line in lines if line.startswith("prompt consistency   100.0 ("))
    assert "12 (2 judges, 6 pairs)" in row
    ann = next(line for line in lines if line.startswith("ann"))
    assert ann.split()[1:8] == ["12", "0", "of", "1", "2", "of", "2"]
    assert f"moslora report {closed}" in result.stderr


def test_judges_who_were_added_are_told_of(moslora: Moslora, tmp_path: Path):
    folder = found(tmp_path)
    judge(folder, method=None)
    study = Study(folder)
    for change in (study.reopen, lambda: study.add_judge("eve"), study.stop):
        change().result()
    study.close()
    line = (
        "- Judges: 2 judges planned and 1 added after the start; 1 of them after judging had been closed once, when"
        " results could be seen. The plan of 24 judgements became one of 36."
    )
    assert line in moslora("judge", "results", folder).stdout.splitlines()
    told = json.loads(moslora("judge", "results", folder, "--json").stdout)
    assert (told["judges_added"], told["judges_added_after_closing"]) == (["eve"], ["eve"])


def test_a_baseline_turns_the_comparison(moslora: Moslora, closed: Path):
    lines = moslora("judge", "results", closed, "--baseline", "mixed").stdout.splitlines()
    assert "plain against mixed, in percent of judgements" in lines
    row = next(line for line in lines if line.startswith("subject similarity"))
    assert row.startswith("subject similarity   0.0 (0.0 to 45.9)")
    assert "-100.0 (-100.0 to -" in row


def test_json_and_csv_hold_the_numbers(moslora: Moslora, closed: Path):
    told = json.loads(moslora("judge", "results", closed, "--json").stdout)
    assert [one["question"] for one in told["findings"]] == ["subject similarity", "prompt consistency"]
    assert told["findings"][0]["win"]["value"] == 1
    assert told["repeats"] == {"asked": 4, "same": 4, "opposite": 0}
    rows = list(csv.DictReader(io.StringIO(moslora("judge", "results", closed, "--csv").stdout)))
    assert [(row["first"], row["second"], row["mean"]) for row in rows] == [("mixed", "plain", "1.0")] * 2


def test_results_are_refused_before_judging_is_closed(refused: Callable[..., str], unfinished: Path):
    message = refused("judge", "results", unfinished)
    assert message.startswith(f"judging of {unfinished} is not closed (")
    assert "of 24 planned judgements): results are shown when it is; close it on the admin page" in message
    assert "mixed" not in message


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_anyway_shows_counts_and_nothing_by_method(moslora: Moslora, unfinished: Path, form: tuple[str, ...]):
    result = moslora("judge", "results", unfinished, "--anyway", *form)
    assert "ann" in result.stdout
    assert "subject similarity" in result.stdout
    for secret in ("mixed", "plain", "win", "100"):
        assert secret not in result.stdout + result.stderr


def test_anyway_changes_nothing_once_judging_is_closed(moslora: Moslora, closed: Path):
    assert moslora("judge", "results", closed, "--anyway").stdout == moslora("judge", "results", closed).stdout


def test_mistakes_are_told_in_a_line(refused: Callable[..., str], closed: Path, tmp_path: Path):
    assert refused("judge", "results", closed, "--baseline", "mixt") == (
        "unknown method 'mixt'; did you mean 'mixed'? (allowed: mixed, plain)"
    )
    assert "--csv and --json cannot go together" in refused("judge", "results", closed, "--csv", "--json")
    assert "holds no study" in refused("judge", "results", tmp_path)


def test_a_plan_is_a_table_and_says_what_it_assumes(moslora: Moslora, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path))
    text = moslora("judge", "plan", "--judges", "4", "--pairs", "8,16").stdout
    lines = text.splitlines()
    assert lines[1].split() == ["judges", "8", "pairs", "16", "pairs"]
    few, many = map(int, lines[2].split()[1:])
    assert lines[2].split()[0] == "4"
    assert few > many > 20
    assert "Assumed, not known: pairs have 30 % of the variance" in text
    told = json.loads(moslora("judge", "plan", "--judges", "4", "--pairs", "8,16", "--json").stdout)
    assert [round(100 * one) for one in told["detectable"][0]] == [few, many]


def test_a_plan_without_numbers_is_refused(refused: Callable[..., str]):
    assert refused("judge", "plan", "--judges", "many") == (
        "--judges 'many' is not a list of numbers; write for example 5,15,30"
    )
