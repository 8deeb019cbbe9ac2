"""Tasks of lm-evaluation-harness, scored by its own code."""

import json
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from moslora.errors import MissingDependencyError
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.kinds.harness_tasks import load_harness_task
from moslora.runs.language_settings import EvaluationSettings
from moslora.runs.scoring import evaluate_adapter

IS_THERE = util.find_spec("lm_eval") is not None


def test_a_task_is_called_after_the_harness():
    assert EvaluationSettings.model_validate({"tasks": ["harness:arc_easy"]}).task_names == ["harness-arc_easy"]


@pytest.mark.skipif(IS_THERE, reason="lm_eval is installed")
def test_without_the_package_one_line_says_what_to_install():
    with pytest.raises(MissingDependencyError) as error:
        load_harness_task("arc_easy", name="harness-arc_easy", limit=None)
    assert str(error.value) == ('the task harness:arc_easy needs lm-evaluation-harness: pip install "moslora[harness]"')


@pytest.mark.skipif(not IS_THERE, reason='needs lm_eval: pip install "moslora[harness]"')
@pytest.mark.filterwarnings("ignore")  # those of the harness are its own
def test_the_harness_asks_and_scores_and_answers_are_kept_by_question(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    from lm_eval.models.huggingface import HFLM  # pyright: ignore

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"Is {n} odd?", "choices": ["yes", "no"], "gold": n % 2} for n in range(5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = {
        "task": "odd",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "gold",
        "doc_to_choice": "choices",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "odd.yaml").write_text(json.dumps(text))
    opened = open_adapter(model_folder, or_base=True, prompt="plain")
    settings = EvaluationSettings.model_validate({"tasks": [f"harness:{tmp_path / 'odd.yaml'}"], "limit": 4})
    how: dict[str, Any] = {"with_agreement": False, "report": lambda _line: None, "progress": False}
    (found,) = evaluate_adapter(opened, settings, answers_folder=tmp_path / "kept", **how)
    kept = [
        json.loads(line)
        for line in (tmp_path / "kept" / "harness-odd-evaluated-harness.jsonl").read_text().splitlines()
    ]
    assert (found.task, found.prompt, found.model_dump()["total"]) == ("harness-odd", "none", 4)
    assert [one["expected"] for one in kept] == ["0", "1", "0", "1"]
    model, tokenizer = load_adapted(opened)
    theirs = HFLM(pretrained=model, tokenizer=tokenizer)
    expected: Callable[[str], Any] = lambda choice: theirs._loglikelihood_tokens(  # noqa: E731
        [((rows[0]["question"], choice), tokenizer.encode(rows[0]["question"]), tokenizer.encode(f" {choice}"))],
        disable_tqdm=True,
    )[0][0]
    assert kept[0]["scores"] == pytest.approx({"0": expected("yes"), "1": expected("no")}, rel=1e-4)
