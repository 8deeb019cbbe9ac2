import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from moslora.records import RunRecord

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def test_evaluating_a_run_prints_the_score_and_adds_it_to_the_record(finished: Path, moslora: Moslora):
    result = moslora("evaluate", finished, "--limit", "6")
    heading, row, *_ = result.stdout.splitlines()
    assert heading.split()[:2] == ["task", "when"]
    assert row.split()[:2] == ["everyday", "evaluated"]
    assert "/6  log-prob." in row
    assert f"answers: {finished / 'answers'}" in result.stderr
    first, second = RunRecord.load(finished / "run.json").evaluations
    assert (first.when, second.when, second.total) == ("after", "evaluated", 6)
    answers = (finished / "answers" / "everyday-evaluated-log_probability.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["is_correct"] for line in answers) == second.correct


def test_evaluating_again_replaces_the_score(finished: Path, moslora: Moslora):
    moslora("evaluate", finished, "--limit", "6")
    moslora("evaluate", finished, "--limit", "2", "--batch-size", "1")
    assert [e.total for e in RunRecord.load(finished / "run.json").evaluations] == [4, 2]


def test_both_ways_of_scoring_are_compared(finished: Path, moslora: Moslora):
    result = moslora("evaluate", finished, "--limit", "3", "--agreement", "--json")
    first, second = json.loads(result.stdout)
    assert (first["scoring"], first["agreement"]) == ("log_probability", None)
    assert second["scoring"] == "generation"
    assert 0 <= second["agreement"] <= 1
    shown = moslora("evaluate", finished, "--limit", "3", "--agreement", "--scoring", "generation").stdout
    assert "everyday: log probability gave the same answer to " in shown


def test_another_task_is_read_from_a_folder(tmp_path: Path, finished: Path, moslora: Moslora):
    sample = {"instruction": "Is it?\nAnswer format: true/false", "output": "the correct answer is true"}
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "boolq.jsonl").write_text(json.dumps({**sample, "answer": "true"}) + "\n")
    (evaluation,) = json.loads(moslora("evaluate", finished, "--task", "boolq", "--data", tmp_path, "--json").stdout)
    assert (evaluation["task"], evaluation["total"]) == ("boolq", 1)


def test_an_adapters_own_folder_works_without_its_run(
    tmp_path: Path, finished: Path, moslora: Moslora, refused: Refused
):
    adapter = (finished / "adapter").rename(tmp_path / "adapter")
    assert refused("evaluate", adapter) == "no task given: add --task, for example --task everyday"
    moslora("evaluate", adapter, "--task", "everyday", "--limit", "2")
    assert (adapter / "answers" / "everyday-evaluated-log_probability.jsonl").is_file()


def test_the_prompt_is_the_runs_unless_another_is_asked_for(
    tmp_path: Path, finished: Path, moslora: Moslora, refused: Refused
):
    answers = finished / "answers" / "everyday-evaluated-log_probability.jsonl"
    moslora("evaluate", finished, "--limit", "2")
    plain = answers.read_text()
    moslora("evaluate", finished, "--limit", "2", "--prompt-style", "plain")
    assert answers.read_text() == plain
    moslora("evaluate", finished, "--limit", "2", "--prompt-style", "alpaca")
    assert answers.read_text() != plain
    assert refused("evaluate", finished, "--prompt-style", "alpca").startswith(
        "unknown prompt style 'alpca'; did you mean 'alpaca'?"
    )


def test_the_adapter_folder_inside_a_run_stands_for_the_run(finished: Path, moslora: Moslora):
    moslora("evaluate", finished / "adapter", "--limit", "2")
    assert len(RunRecord.load(finished / "run.json").evaluations) == 2


def test_mistakes_are_one_line(tmp_path: Path, finished: Path, refused: Refused):
    assert refused("evaluate", finished, "--task", "evryday").startswith(
        "evaluate: tasks: unknown task 'evryday'; did you mean 'everyday'?"
    )
    assert refused("evaluate", finished, "--scoring", "guess").startswith(
        "evaluate: scoring is 'guess' (text) (allowed:"
    )
    assert refused("evaluate", finished, "--task", "boolq").startswith("task 'boolq' needs a data folder")
    assert refused("evaluate", tmp_path / "nowhere") == (
        f"{tmp_path / 'nowhere'} has no adapter_config.json: give the folder of a saved adapter"
    )
