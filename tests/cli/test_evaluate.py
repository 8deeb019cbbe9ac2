import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import Result

from moslora.data.everyday import everyday
from moslora.data.tasks import task
from moslora.evaluation.choice import score_by_log_probability
from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.kinds.speaking import Speaker

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    before = contents(adapter)
    kept = moslora("evaluate", adapter, "--task", "everyday", "--limit", "2").stderr
    assert "answers: not kept; name a folder for them with --answers" in kept
    moslora("evaluate", adapter, "--task", "everyday", "--limit", "2", "--answers", tmp_path / "kept" / "here")
    assert (tmp_path / "kept" / "here" / "everyday-evaluated-log_probability.jsonl").is_file()
    assert contents(adapter) == before


@pytest.mark.parametrize("command", ["fold", "merge"])
def test_a_shipped_folder_is_scored_with_its_runs_prompt_and_stays_as_it_is(
    tmp_path: Path, finished: Path, moslora: Moslora, refused: Refused, command: str
):
    shipped = tmp_path / "shipped"
    moslora(command, finished, "--output", shipped)
    before = contents(shipped)
    options = ("--task", "everyday", "--limit", "2")
    (found,) = json.loads(moslora("evaluate", shipped, *options, "--json").stdout)
    assert found["prompt"] == "plain"
    (other,) = json.loads(moslora("evaluate", shipped, *options, "--prompt-style", "alpaca", "--json").stdout)
    assert other["prompt"] == "alpaca"
    assert contents(shipped) == before
    (shipped / "moslora.json").write_text('{"prompt": "haiku"}')
    assert refused("evaluate", shipped, *options).startswith(f"{shipped / 'moslora.json'} names the prompt 'haiku'")
    (shipped / "moslora.json").unlink()
    expected = (
        f"{shipped} does not say with which prompt it was trained: give --prompt-style (alpaca, plain, chat, none)"
    )
    if command == "fold":  # what was merged is then a base model
        assert refused("evaluate", shipped, *options) == refused("generate", shipped, "Hello") == expected


@pytest.mark.parametrize(
    ("source", "described", "prompt"),
    [
        ("run", "run/adapter, an adapter (MOSLORA) on {model}", "plain"),
        ("folded", "folded, an adapter (LORA) on {model}", "plain"),
        ("merged", "merged, a merged model", "plain"),
        ("tiny", "tiny, a base model without an adapter", "chat"),
        ("templateless", "templateless, a base model without an adapter", "plain"),
    ],
)
def test_it_says_what_is_scored_and_how_it_is_asked(
    tmp_path: Path,
    finished: Path,
    moslora: Moslora,
    model_folder: Path,
    source: str,
    described: str,
    prompt: str,
):
    folder = tmp_path / source
    if source in ("folded", "merged"):
        moslora("fold" if source == "folded" else "merge", finished, "--output", folder)
    elif source in ("tiny", "templateless"):
        shutil.copytree(model_folder, folder)
        if source == "templateless":
            (folder / "chat_template.jinja").unlink()
    result = moslora("evaluate", folder, "--task", "everyday", "--limit", "1", "--json")
    told = f"evaluating {tmp_path}/{described.format(model=model_folder)} (prompt: {prompt})"
    assert told in result.stderr.splitlines()
    (found,) = json.loads(result.stdout)
    assert (found["prompt"], found["total"]) == (prompt, 1)


def test_a_base_model_is_scored_as_what_it_is(tmp_path: Path, model_folder: Path, moslora: Moslora, refused: Refused):
    arguments = ("evaluate", model_folder, "--task", "everyday", "--limit", "4", "--prompt-style", "plain")
    moslora(*arguments, "--answers", tmp_path)
    lines = (tmp_path / "everyday-evaluated-log_probability.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    model, tokenizer = load_adapted(open_adapter(model_folder, or_base=True))
    answers = score_by_log_probability(
        model, tokenizer, [*everyday("test")][:4], task=task("everyday"), prompt_style="plain", progress=False
    )
    assert [one["scores"] for one in kept] == [pytest.approx(one.scores, rel=1e-5) for one in answers]
    assert refused(*arguments, "--base", "smollm2") == (
        f"{model_folder} is itself a base model: leave out --base smollm2"
    )


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
        f"there is no folder {tmp_path / 'nowhere'}: give that of a run, or of a saved adapter"
    )


def test_a_run_on_chats_is_asked_in_its_template_and_says_so(
    tmp_path: Path, recipe_in: Callable[..., Path], moslora: Moslora
):
    chat = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "chats.jsonl").write_text((json.dumps(chat) + "\n") * 4)
    recipe = recipe_in(tmp_path, data={"train": str(tmp_path / "chats.jsonl"), "format": "chat"})
    run = tmp_path / "run"
    moslora("train", recipe, "--output", run, "--set", "evaluation.limit=2", "--set", "training.max_steps=1")
    record = RunRecord.load(run / "run.json")
    assert [evaluation.prompt for evaluation in record.evaluations] == ["chat"]
    assert "questions are asked through the chat template, as trained" in record.notes
    asked = run / "answers" / "everyday-evaluated-log_probability.jsonl"
    moslora("evaluate", run, "--limit", "2")
    chat_answers = asked.read_text()
    (evaluation,) = json.loads(moslora("evaluate", run, "--limit", "2", "--prompt-style", "plain", "--json").stdout)
    assert evaluation["prompt"] == "plain"
    assert asked.read_text() != chat_answers


def test_generate_asks_as_the_run_was_trained(
    finished: Path, moslora: Moslora, monkeypatch: pytest.MonkeyPatch, model_folder: Path
):
    record = RunRecord.load(finished / "run.json")
    record.recipe["data"]["format"] = "chat"
    record.save(finished / "run.json")
    asked: list[str] = []
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    made = Speaker.prompt_ids

    def noted(speaker: Speaker, prompts: Any) -> list[list[int]]:
        ids = made(speaker, prompts)
        asked.extend(tokenizer.decode(row) for row in ids)
        return ids

    monkeypatch.setattr(Speaker, "prompt_ids", noted)
    for options in ([], ["--prompt-style", "chat"], ["--prompt-style", "plain"]):
        moslora("generate", finished, "Hello", "--max-new-tokens", "1", *options)
    chat = "<|start|>user\nHello<|end|><|start|>assistant\n"
    assert asked == [chat, chat, "Hello\nResponse:\n"]


def test_a_record_from_before_prompts_were_noted_is_still_read_and_resumed(finished: Path, moslora: Moslora):
    record = json.loads((finished / "run.json").read_text())
    del record["recipe"]["data"]["ignore"], record["recipe"]["evaluation"]["prompt"], record["evaluations"][0]["prompt"]
    (finished / "run.json").write_text(json.dumps(record))
    assert RunRecord.load(finished / "run.json").evaluations[0].prompt is None
    result = moslora("train", finished / "recipe.yaml", "--output", finished, "--resume")
    assert "is finished; nothing to do" in result.stderr
