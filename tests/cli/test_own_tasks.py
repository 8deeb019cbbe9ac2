"""Files of one's own as tasks: what is scored, printed and kept."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from typer.testing import Result

from moslora.data.prompts import build_prompt
from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter

Moslora = Callable[..., Result]
Refused = Callable[..., str]

FILES: dict[str, list[dict[str, Any]]] = {
    "exam": [{"question": f"Is {n} odd?", "A": "yes", "B": "no", "answer": "AB"[n % 2 == 0]} for n in range(4)],
    "facts": [{"question": f"What is {n}?", "answers": ["a number", str(n)]} for n in range(3)],
    "kept": [{"instruction": f"Say {word}.", "output": word} for word in ("a", "bb", "ccc")],
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The path of each file, by its task's name."""
    for name, rows in FILES.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(tmp_path / f"{name}.jsonl") for name in FILES}


def given(files: dict[str, str]) -> list[str]:
    return [part for path in files.values() for part in ("--task", path)]


def test_each_sort_of_file_is_scored_in_its_own_way(finished: Path, files: dict[str, str], moslora: Moslora):
    found = json.loads(moslora("evaluate", finished, *given(files), "--json").stdout)
    assert [(one["task"], one["scoring"]) for one in found] == [
        ("exam", "log_probability"),
        ("facts", "generation"),
        ("kept", "loss"),
    ]
    exam, facts, kept = found
    assert (exam["total"], exam["chance"], facts["total"], facts["chance"]) == (4, 0.5, 3, None)
    assert facts["scored"]["rule"].startswith("exact match of the first line")
    assert kept["perplexity"] == pytest.approx(math.exp(kept["loss"]))
    assert kept["low"] < kept["loss"] < kept["high"]
    assert (kept["samples"], kept["learned"]) == (3, "sequence")
    assert not {"accuracy", "chance"} & kept.keys()
    record = RunRecord.load(finished / "run.json")
    assert [one.task for one in record.evaluations] == ["everyday", "exam", "facts"]
    assert [one.model_dump(mode="json") for one in record.losses] == [kept]
    lines = (finished / "answers" / "kept-evaluated-loss.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [0, 1, 2]


def test_the_loss_is_that_of_the_training_samples_format(finished: Path, files: dict[str, str], moslora: Moslora):
    (found,) = json.loads(moslora("evaluate", finished, "--task", files["kept"], "--json").stdout)
    model, tokenizer = load_adapted(open_adapter(finished))
    total, tokens = 0.0, 0
    for sample in FILES["kept"]:
        text = build_prompt(sample, style="plain") + sample["output"]
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1]
        total += float(cross_entropy(logits, ids[0, 1:], reduction="sum"))
        tokens += ids.shape[1] - 1
    assert found["tokens"] == tokens
    assert found["loss"] == pytest.approx(total / tokens, rel=1e-5)


def test_an_accuracy_that_says_little_is_said_to_once_for_each_way_of_scoring(
    finished: Path, files: dict[str, str], moslora: Moslora
):
    """The tiny model would neither give a letter nor write one."""
    lines = moslora("evaluate", finished, "--task", files["exam"]).stdout.splitlines()
    assert [line.split(":")[0] for line in lines[2:]] == ["exam, evaluated"]
    assert "'the correct answer is ...' 0.0 % of the probability, all labels together" in lines[2]
    lines = moslora("evaluate", finished, "--task", files["exam"], "--scoring", "generation").stdout.splitlines()
    (path,) = (finished / "answers").glob("exam-*-generation.jsonl")
    unread = [line for line in path.read_text().splitlines() if json.loads(line)["predicted"] is None]
    told = f"exam, evaluated: nothing could be read from {len(unread)} of 4 answers; they count as wrong"
    assert lines[2:] == [told]


def test_losses_are_printed_apart_from_accuracies(finished: Path, files: dict[str, str], moslora: Moslora):
    lines = moslora("evaluate", finished, *given(files)).stdout.splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("held out"))
    assert lines[heading].split("  ")[0] == "held out"
    assert "perplexity" in lines[heading]
    assert lines[heading + 1].split()[:2] == ["kept", "evaluated"]
    assert not any(line.startswith("kept") for line in lines[:heading])
    assert max(map(len, lines[heading:])) <= 60


def test_evaluating_again_replaces_a_loss(finished: Path, files: dict[str, str], moslora: Moslora):
    moslora("evaluate", finished, "--task", files["kept"])
    moslora("evaluate", finished, "--task", files["kept"], "--limit", "2")
    assert [one.samples for one in RunRecord.load(finished / "run.json").losses] == [2]


def test_two_files_of_one_name_are_two_tasks(tmp_path: Path, finished: Path, files: dict[str, str], moslora: Moslora):
    """Samples and text, questions with options and with short answers: none takes the place of another."""
    (tmp_path / "kept.txt").write_text("A text.")
    (tmp_path / "other").mkdir()
    for other, name in (("facts", "exam"), ("exam", "kept")):
        (tmp_path / "other" / f"{name}.jsonl").write_text(Path(files[other]).read_text())
    others = {name: str(tmp_path / "other" / f"{name}.jsonl") for name in ("exam", "kept")}
    moslora("evaluate", finished, *given(files), "--scoring", "generation")
    first = RunRecord.load(finished / "run.json")
    for _ in range(2):  # each keeps the name that it has got
        told = moslora("evaluate", finished, "--task", str(tmp_path / "kept.txt")).stderr
        assert (
            f"{tmp_path}/kept.txt is called 'kept.txt' here: the run has scored another 'kept', which is kept" in told
        )
        result = moslora("evaluate", finished, *given(others), "--scoring", "generation")
        assert result.stderr.count(" is called ") == 2
    record = RunRecord.load(finished / "run.json")
    assert [one.task for one in record.losses] == ["kept", "kept.txt"]
    assert record.losses[:1] == first.losses
    assert {one.task for one in record.evaluations} == {"everyday", "exam", "facts", "exam.jsonl", "kept.jsonl"}
    assert [one for one in record.evaluations if one in first.evaluations] == first.evaluations
    kinds = {one.task: one.file.kind for one in record.evaluations if one.file}
    assert kinds == {"exam": "choice", "facts": "short", "exam.jsonl": "short", "kept.jsonl": "choice"}
    assert (finished / "answers" / "kept.txt-evaluated-loss.jsonl").is_file()


def test_a_file_that_has_changed_replaces_what_was_evaluated_but_not_what_training_scored(
    tmp_path: Path, files: dict[str, str], recipe_in: Callable[..., Path], moslora: Moslora
):
    run, kept = tmp_path / "run", Path(files["kept"])
    recipe = recipe_in(tmp_path, evaluation={"tasks": [files["exam"]]}, training={"max_steps": 1})
    moslora("train", recipe, "--output", run)
    for path, expected in ((kept, "has changed since it was scored"), (Path(files["exam"]), "is called 'exam.jsonl'")):
        assert path.name not in moslora("evaluate", run, "--task", path).stderr
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
        assert f"{path} {expected}" in moslora("evaluate", run, "--task", path).stderr
    record = RunRecord.load(run / "run.json")
    assert [(one.task, one.samples) for one in record.losses] == [("kept", 2)]
    assert [(one.task, one.when, one.total) for one in record.evaluations] == [
        ("exam", "after", 4),
        ("exam", "evaluated", 4),
        ("exam.jsonl", "evaluated", 2),
    ]


def test_a_recipe_scores_files_before_and_after_training(
    tmp_path: Path, files: dict[str, str], recipe_in: Callable[..., Path], moslora: Moslora
):
    tasks = {"tasks": [*files.values()], "before": True, "agreement_questions": 2}
    recipe = recipe_in(tmp_path, evaluation=tasks, data={"validation_samples": 4})
    record = json.loads(moslora("train", recipe, "--output", tmp_path / "run", "--json").stdout)
    assert [(one["task"], one["when"]) for one in record["losses"]] == [("kept", "before"), ("kept", "after")]
    again = [one for one in record["evaluations"] if one["agreement"] is not None]
    assert [(one["task"], one["scoring"]) for one in again] == [("exam", "generation")]
    assert record["validation_perplexity"] == pytest.approx(math.exp(record["validation_loss"]))
    shown = moslora("train", recipe, "--output", tmp_path / "run", "--resume").stdout
    assert f"perplexity          {record['validation_perplexity']:.2f} on the validation samples" in shown or not shown


def test_a_record_without_losses_is_written_as_before(finished: Path):
    kept = json.loads((finished / "run.json").read_text())
    assert not {"losses", "validation_perplexity"} & kept.keys()


def test_a_file_that_is_not_there_is_refused_before_the_model_is_loaded(
    tmp_path: Path, finished: Path, refused: Refused
):
    (tmp_path / "exam.jsonl").write_text("{}")
    assert refused("evaluate", finished, "--task", str(tmp_path / "exams.jsonl")) == (
        f"{tmp_path / 'exams.jsonl'}: no such file; did you mean 'exam.jsonl'; check the path"
    )


def test_a_sample_that_the_model_cannot_read_stops_before_training(
    tmp_path: Path, recipe_in: Callable[..., Path], refused: Refused
):
    path = tmp_path / "kept.jsonl"
    path.write_text('{"instruction": "Say a.", "output": "a"}\n{"instruction": "Say b.", "output": ""}\n')
    recipe = recipe_in(tmp_path, evaluation={"tasks": [str(path)]})
    message = refused("train", recipe, "--output", tmp_path / "run")
    assert message == (
        f"{path}: sample 2: field 'output' is '', expected text; correct the sample"
        " (to leave such samples out: --set data.on_bad=skip)"
    )
    assert not (tmp_path / "run").exists()


def test_held_out_samples_are_read_as_the_settings_of_training_samples_say(
    tmp_path: Path, recipe_in: Callable[..., Path], moslora: Moslora
):
    """Columns and fields to ignore; what is wrong is named by its line, or left out; long text is divided."""
    rows = [{"question": f"Say {n}.", "reply": str(n), "context": "none"} for n in range(40)]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "kept.jsonl").write_text("\n\n".join([*lines, '{"question": "Say."}']))
    data = {"train": str(tmp_path / "kept.jsonl"), "columns": {"instruction": "question", "output": "reply"}}
    data |= {"ignore": ["context"], "on_bad": "skip"}
    recipe = recipe_in(tmp_path, evaluation={"tasks": []}, data=data, training={"max_steps": 1})
    moslora("train", recipe, "--output", tmp_path / "run")
    asked = ("evaluate", tmp_path / "run", "--task", f"samples:{tmp_path / 'kept.jsonl'}", "--json")
    (found,) = json.loads(moslora(*asked).stdout)
    assert found["samples"] == 40
    (tmp_path / "kept.jsonl").write_text("\n\n".join([*lines[:3], '{"question": "Say."}']))
    told = moslora(*asked, exit_code=2).stderr.splitlines()[-1]
    assert "sample 4 (line 7): field 'output' is missing" in told
    (tmp_path / "long.txt").write_text("A text of many words. " * 50)
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"longer": "cut"', '"longer": "leave_out"'))
    done = moslora("evaluate", tmp_path / "run", "--task", tmp_path / "long.txt", "--json")
    assert "scoring long (loss, 1 document)" in done.stderr
    (text,) = json.loads(done.stdout)
    assert text["samples"] == 1
    assert text["tokens"] > 1000


def test_samples_are_read_by_their_columns_as_for_training_and_a_guess_is_told(
    tmp_path: Path, finished: Path, moslora: Moslora
):
    (tmp_path / "named.csv").write_text("Frage;Antwort\nSay a.;a\n")
    (tmp_path / "odd.csv").write_text("en,fr\nSay a.,a\n")
    tasks = [f"samples:{tmp_path / 'named.csv'}", tmp_path / "odd.csv"]
    done = moslora("evaluate", finished, "--task", tasks[0], "--task", tasks[1], "--json")
    named, odd = json.loads(done.stdout)
    assert named["loss"] == odd["loss"]
    guess = f"{tmp_path / 'odd.csv'}: 'en' is taken for the question and 'fr' for the answer"
    assert [line for line in done.stderr.splitlines() if "taken for" in line] == [guess]


def test_without_a_run_the_format_is_told_by_the_fields(
    tmp_path: Path, finished: Path, files: dict[str, str], moslora: Moslora
):
    moslora("merge", finished, "--output", tmp_path / "merged")
    (found,) = json.loads(moslora("evaluate", tmp_path / "merged", "--task", files["kept"], "--json").stdout)
    assert (found["learned"], found["prompt"], found["samples"]) == ("response", "plain", 3)
