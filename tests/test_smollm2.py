"""The main job on the real model, a few steps long: train, score, fold, merge; both exports answer as the adapter."""

import json
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from moslora.cli import app
from moslora.data.everyday import everyday
from moslora.data.tasks import task
from moslora.evaluation.choice import score_by_log_probability
from moslora.records import RunRecord
from moslora.runs.groups import ModelSettings
from moslora.runs.models import load_model, load_tokenizer

QUESTIONS = 12
SETTINGS = {
    "model.dtype": "float32",
    "training.max_steps": 4,
    "training.batch_size": 4,
    "training.save_every_steps": "null",
    "training.log_every_steps": 1,
    "evaluation.limit": QUESTIONS,
    "evaluation.agreement_questions": 2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, demo_model: None) -> Path:
    folder = tmp_path_factory.mktemp("real") / "run"
    command("train", "demo", "--output", str(folder), *(f"--set={key}={value}" for key, value in SETTINGS.items()))
    command("fold", str(folder))
    command("merge", str(folder))
    return folder


def command(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output


def test_the_record_tells_what_was_done(run: Path) -> None:
    record = RunRecord.load(run / "run.json")
    assert record.status == "finished"
    assert record.steps == 4
    assert record.parameters is not None
    assert record.parameters.trainable == 3_356_160
    assert record.parameters.mixer == 30 * 5 * 16 * 16
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert {evaluation.when for evaluation in record.evaluations} == {"before", "after", "question removed"}


def test_both_exports_answer_as_the_adapter_without_our_classes(run: Path) -> None:
    settings = ModelSettings(path="smollm2", dtype="float32")
    tokenizer = load_tokenizer(settings)
    lines = (run / "answers" / "everyday-after-log_probability.jsonl").read_text().splitlines()
    expected = [json.loads(line)["scores"] for line in lines]
    folded = PeftModel.from_pretrained(load_model(settings), str(run / "folded"))
    assert folded.peft_config["default"].peft_type.value == "LORA"
    merged = AutoModelForCausalLM.from_pretrained(run / "merged")
    for model in (folded, merged):
        answers = score_by_log_probability(
            model,
            tokenizer,
            everyday("test")[:QUESTIONS],
            task=task("everyday"),
            prompt_style="plain",
            progress=False,
        )
        for answer, scores in zip(answers, expected, strict=True):
            assert answer.scores == pytest.approx(scores, abs=2e-2)
