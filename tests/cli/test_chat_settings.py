"""A chat template and a system message of one's own, from the recipe to all that is done with what was trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from moslora.data.prompts import prompt_ids
from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter

Moslora = Callable[..., Result]
TEMPLATE = (
    "{% for m in messages %}{{ m.role | upper + ': ' + m.content }}{{ '<|end|>' }}\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
SYSTEM = "Be brief."


@pytest.fixture
def train(tmp_path: Path, moslora: Moslora, write_recipe: Callable[..., Path]) -> Callable[..., Result]:
    def run(samples: list[dict[str, Any]], **data: Any) -> Result:
        recipe = write_recipe(training={"max_steps": 1}, data={"max_length_tokens": 128, **data})
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
        return moslora("train", recipe, "--output", tmp_path / "run")

    return run


def chats() -> list[dict[str, Any]]:
    asked = [[{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello"}] for n in range(4)]
    return [{"messages": messages} for messages in asked]


def test_the_template_and_the_system_message_go_with_what_is_trained(tmp_path: Path, train: Any, moslora: Moslora):
    file = tmp_path / "own.jinja"
    file.write_text(TEMPLATE)
    result = train(chats(), format="chat", loss_on="response", chat_template=str(file), system=SYSTEM)
    shown = [
        "the first sample, with what is learned between « and »:",
        f"  SYSTEM: {SYSTEM}<|end|>",
        "  USER: Hi 0<|end|>",
        "  ASSISTANT: «Hello<|end|>»",
    ]
    lines = result.stderr.splitlines()
    start = lines.index(shown[0])
    assert lines[start : start + len(shown)] == shown
    assert lines[start + len(shown)].startswith("loading ")
    run = tmp_path / "run"
    assert (run / "sample.txt").read_text().splitlines() == shown
    file.unlink()
    folded = tmp_path / "folded"
    moslora("fold", run, "--output", folded)
    moslora("generate", folded, "--chat", "--max-new-tokens", "2", stdin="Hi\n\n")
    moslora("evaluate", run, "--task", "everyday", "--limit", "2")
    for place in (run, folded):
        opened = open_adapter(place)
        _, tokenizer = load_adapted(opened)
        (ids,) = prompt_ids([{"instruction": "Hi"}], tokenizer, style=opened.asked_with)
        assert tokenizer.decode(ids) == f"SYSTEM: {SYSTEM}<|end|>\nUSER: Hi<|end|>\nASSISTANT: "
    assert {one.prompt for one in RunRecord.load(run / "run.json").evaluations} == {"chat"}


def test_the_system_message_of_instructions_stands_before_questions_too(
    tmp_path: Path, train: Any, moslora: Moslora, monkeypatch: pytest.MonkeyPatch
):
    samples = [{"instruction": f"Say {n}", "output": f"{n}"} for n in range(4)]
    samples[0]["system"] = "Count."
    asked: list[str | None] = []
    original = prompt_ids

    def noting(samples: Any, *arguments: Any, **options: Any) -> Any:
        asked.extend(sample.get("system") for sample in samples if "\n" in sample["instruction"])
        return original(samples, *arguments, **options)

    monkeypatch.setattr("moslora.evaluation.choice.prompt_ids", noting)
    result = train(samples, prompt="plain", system=SYSTEM)
    assert "  «Count." in result.stderr.splitlines()
    moslora("evaluate", tmp_path / "run", "--task", "everyday", "--limit", "2")
    assert asked
    assert set(asked) == {SYSTEM}
    moslora("fold", tmp_path / "run", "--output", tmp_path / "folded")
    assert open_adapter(tmp_path / "run").system == open_adapter(tmp_path / "folded").system == SYSTEM
