"""The page `docs/own-data.md` walked from an empty folder on the real model: every command, all Python, few steps."""

import csv
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moslora.cli import app
from moslora.records import RunRecord
from moslora.runs.models import resolve_model

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
KINDS = {"sparrow": "bird", "birch": "tree", "trout": "fish", "granite": "rock", "fox": "mammal", "ant": "insect"}
PAIRS = [(f"What is a {name}, question {n}?", f"A kind of {kind}.") for n in range(10) for name, kind in KINDS.items()]
FEW_STEPS = ["--set", "training.max_steps=2", "--set", "training.evaluate_every_steps=2"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, demo_model: None) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder in which the page was walked, and what each of its blocks printed."""
    import pandas

    folder = tmp_path_factory.mktemp("own")
    lines = [json.dumps({"instruction": question, "output": answer}) for question, answer in PAIRS]
    (folder / "mine.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": chat(*pair)}) + "\n" for pair in PAIRS))
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *PAIRS])
    pandas.DataFrame(PAIRS, columns=["en", "fr"]).to_parquet(folder / "pairs.parquet")
    (folder / "questions.csv").write_text(block_with("question,A,B,C,D,answer"))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield folder, walk()


def chat(question: str, answer: str) -> list[dict[str, str]]:
    turns = [("system", "You are terse."), ("user", question), ("assistant", answer), ("user", "Sure?")]
    return [{"role": role, "content": text} for role, text in (*turns, ("assistant", "Yes."))]


def blocks(language: str) -> list[tuple[str, str]]:
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```({language})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def block_with(start: str) -> str:
    (found,) = [text for _, text in blocks("text") if text.startswith(start)]
    return found


def walk() -> dict[str, str]:
    """Run every command and all Python in the order of the page; what each command printed."""
    printed: dict[str, str] = {}
    names: dict[str, object] = {}
    for language, text in blocks("sh|python"):
        if language == "python":
            exec(compile(text.replace(HUB_ID, resolve_model("smollm2")), "printed", "exec"), names)
            continue
        for line in text.splitlines():
            _, command, *rest = shlex.split(line)
            result = CliRunner().invoke(app, [command, *rest, *(FEW_STEPS if command == "train" else [])])
            assert result.exit_code == 0, (line, result.stdout, result.stderr, result.exception)
            printed[line] = result.stdout
    return printed


def test_the_page_leads_from_a_file_to_a_model_that_answers(walked: tuple[Path, dict[str, str]]):
    folder, printed = walked
    assert "judged by the loss on 6 samples" in printed["moslora init mine.jsonl"]
    record = RunRecord.load(folder / "runs/mine/run.json")
    assert (record.status, record.steps) == ("finished", 2)
    assert record.validation_loss is not None
    assert [found.task for found in record.evaluations] == ["questions"]
    assert printed['moslora generate runs/mine "What is a wren?"'].strip()
    assert "the base model was made on this machine and is in its cache" in printed["moslora fold runs/mine"]
    for name in ("folded/adapter_model.safetensors", "merged/model.safetensors"):
        assert (folder / "runs/mine" / name).is_file()


def test_what_is_told_beforehand_stands_in_the_recipe(walked: tuple[Path, dict[str, str]]):
    text = (walked[0] / "longer.yaml").read_text()
    assert "r: 32 " in text
    assert "epochs: 2 " in text


@pytest.mark.parametrize("name", ["chats", "table", "pairs"])
def test_other_files_are_trained_on_as_they_are(walked: tuple[Path, dict[str, str]], name: str):
    assert RunRecord.load(walked[0] / f"runs/{name}/run.json").status == "finished"


def test_of_a_chat_every_answer_is_learned_and_the_rest_is_read(walked: tuple[Path, dict[str, str]]):
    sample = walked[1]["moslora init chats.jsonl"].partition("and »\n")[2].partition("sample 2")[0]
    assert re.findall("«(.*?)»", sample, re.DOTALL) == ["A kind of bird.<|im_end|>", "Yes.<|im_end|>"]
    assert "You are terse." in sample
