"""Files of one's own in a comparison: accuracies as of built-in tasks, and losses, which are none."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moslora.comparison.compare import run_comparison
from moslora.comparison.losses import HeldOut, compare_losses, read_held_out
from moslora.comparison.plan import parse_plan
from moslora.comparison.statistics import Questions
from moslora.comparison.tables import csv_text, footnotes, markdown
from moslora.comparison.verdict import overall
from moslora.errors import CheckpointError
from moslora.records import ComparisonRecord
from moslora.reports.comparison_chapter import comparison_chapter
from moslora.reports.page import make_report
from moslora.reports.parts import Table
from moslora.reports.reading import Comparison

TOKENS = np.array([4.0, 8.0, 4.0, 8.0, 4.0, 8.0, 4.0, 8.0])
SAMPLES = Questions(len(TOKENS), weights=TOKENS, steps=np.zeros(len(TOKENS)))


def held_out(gap: float, *, seeds: int = 3, noise: float = 0.01) -> HeldOut:
    rng = np.random.default_rng(1)
    base = {seed: 2 + rng.normal(0, noise, len(TOKENS)) for seed in range(seeds)}
    return HeldOut({"lora": base, "other": {seed: one + gap for seed, one in base.items()}}, SAMPLES)


def test_a_lower_loss_is_shown_as_lower_and_a_higher_one_as_higher():
    for gap, word in ((-0.2, "lower"), (0.2, "higher")):
        results, (difference,) = compare_losses({"kept": held_out(gap)}, baseline={"lora": "lora", "other": "lora"})
        assert difference.mean == pytest.approx(gap)
        assert difference.verdict.startswith(f"{word} than lora by 0.2000 (")
        assert results["other"]["kept"].mean - results["lora"]["kept"].mean == pytest.approx(gap)


def test_samples_count_by_their_tokens():
    losses = {0: np.where(TOKENS == 8, 1.0, 4.0)}
    results, _ = compare_losses({"kept": HeldOut({"lora": losses}, SAMPLES)}, baseline={"lora": "lora"})
    assert results["lora"]["kept"].mean == pytest.approx(2.0)


def test_one_seed_cannot_tell_and_no_difference_is_not_one():
    pairs = {"lora": "lora", "other": "lora"}
    _, (one_seed,) = compare_losses({"kept": held_out(-0.2, seeds=1)}, baseline=pairs)
    assert one_seed.verdict.startswith("one seed: cannot tell (within this seed p ")
    assert one_seed.low is None
    found = held_out(0.0)
    rng = np.random.default_rng(2)
    found.losses["other"] = {seed: 2 + rng.normal(0, 0.01, len(TOKENS)) for seed in range(3)}
    _, (difference,) = compare_losses({"kept": found}, baseline=pairs)
    assert difference.verdict.startswith("no difference shown: ")


def test_the_choice_of_the_learning_rate_stays_a_doubt():
    doubts = {"other": ["0.1 is the highest rate tried"]}
    _, (difference,) = compare_losses({"kept": held_out(-0.2)}, baseline={"other": "lora"}, doubts=doubts)
    assert difference.verdict.endswith("which may be the learning rate's doing (other: 0.1 is the highest rate tried)")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, recipe_in: Callable[..., Path]) -> tuple[ComparisonRecord, Path]:
    folder = tmp_path_factory.mktemp("own")
    files: dict[str, list[dict[str, Any]]] = {
        "exam": [{"question": f"Is {n} odd?", "A": "yes", "B": "no", "answer": "AB"[n % 2 == 0]} for n in range(4)],
        "facts": [{"question": f"What is {n}?", "answer": "a number"} for n in range(3)],
        "kept": [{"instruction": f"Say {word}.", "output": word} for word in ("a", "bb", "ccc")],
    }
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = [str(folder / f"{name}.jsonl") for name in files]
    recipe = json.loads(recipe_in(folder, training={"save_every_steps": 4}, evaluation={"tasks": tasks}).read_text())
    del recipe["seed"], recipe["training"]["learning_rate"]
    settings = {
        "name": "own",
        "recipe": recipe,
        "arms": {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}},
        "baseline": "lora",
        "seeds": [1, 2],
        "tuning": {"learning_rates": [0.01]},
    }
    plan = parse_plan(settings, source="plan own")
    return run_comparison(plan, folder / "out"), folder / "out"


def test_each_kind_of_file_is_compared(compared: tuple[ComparisonRecord, Path]):
    record, _ = compared
    assert record.tasks == ["exam", "facts"]
    assert [{*arm.tasks} for arm in record.arms] == [{"exam", "facts", "average"}] * 2
    assert {one.task for one in record.differences} == {"exam", "facts", "average"}
    assert record.chance == {"exam": 0.5}
    assert [(one.task, one.seeds) for one in record.loss_differences] == [("kept", 2)]
    for arm in record.arms:
        assert {*arm.losses} == {"kept"}
        assert arm.losses["kept"].mean > 1, "a loss in nats is not a share"
    assert "Loss per token on kept: moslora" in record.verdict


def test_a_loss_is_never_called_accuracy(compared: tuple[ComparisonRecord, Path]):
    record, folder = compared
    text = markdown(record)
    head, _, losses = text.partition("| loss of held-out samples | kept |")
    assert "kept" not in next(line for line in head.splitlines() if line.startswith("| method"))
    assert f"{record.arms[0].losses['kept'].mean:.4f}" in losses
    assert any(
        note.startswith("Loss of held-out samples: nats per token, lower is better") for note in footnotes(record)
    )
    rows = [*csv.DictReader(io.StringIO(csv_text(record)))]
    assert [row["mean"] for row in rows if row["task"] == "kept (loss)"] == [
        str(arm.losses["kept"].mean) for arm in record.arms
    ]
    assert ComparisonRecord.load(folder / "comparison.json") == record


def test_a_comparison_can_be_of_losses_alone(compared: tuple[ComparisonRecord, Path]):
    alone = compared[0].model_copy(update={"tasks": [], "differences": []})
    assert overall(alone).startswith("Loss per token on kept: ")
    assert not any(note.startswith("Accuracy") for note in footnotes(alone))


def test_the_report_of_losses_alone_begins_with_them_and_speaks_of_no_accuracy(
    compared: tuple[ComparisonRecord, Path],
):
    record, folder = compared
    bare = [arm.model_copy(update={"tasks": {}}) for arm in record.arms]
    gone = {"tasks": [], "differences": [], "chance": {}, "scored": {}, "groups": {}}
    alone = record.model_copy(update={"arms": bare, **gone})
    chapter = comparison_chapter(Comparison(folder, alone, {}), name="c1")
    (difference,) = alone.loss_differences
    assert chapter.number.endswith("\N{NO-BREAK SPACE}nats")
    assert chapter.summary.startswith(
        f"moslora is {'below' if difference.mean < 0 else 'above'} lora in loss per token"
    )
    assert "task kept;" in chapter.facts
    results = chapter.sections[0]
    assert results.intro.startswith("Loss of held-out samples in nats per token, lower is better")
    assert [part.caption for part in results.parts if isinstance(part, Table)] == [
        "Mean loss of held-out samples, nats per token; lower is better",
        "Differences in loss; below 0 the arm is better",
        "Differences in loss in words",
        "Cost of every arm",
    ]
    assert "Loss of held-out samples" not in [section.title for section in chapter.sections]


def test_a_diverged_seed_counts_with_the_highest_losses(compared: tuple[ComparisonRecord, Path]):
    record, folder = compared
    finished = {arm.arm: {int(seed): folder / run for seed, run in arm.runs.items()} for arm in record.arms}
    gone = {"lora": {}, "moslora": {2: finished["moslora"].pop(2)}}
    found = read_held_out(finished, gone, task="kept")
    others = [found.losses["lora"][1], found.losses["lora"][2], found.losses["moslora"][1]]
    assert np.array_equal(found.losses["moslora"][2], np.max(others, axis=0))


def test_losses_of_other_samples_are_refused(compared: tuple[ComparisonRecord, Path]):
    record, folder = compared
    finished = {arm.arm: {int(seed): folder / run for seed, run in arm.runs.items()} for arm in record.arms}
    path = finished["moslora"][2] / "answers" / "kept-after-loss.jsonl"
    kept = path.read_text()
    try:
        path.write_text(kept.splitlines(keepends=True)[0])
        with pytest.raises(CheckpointError, match="did not measure the loss on the same samples of kept"):
            read_held_out(finished, {}, task="kept")
        path.write_text('{"index": 0}\n')
        with pytest.raises(CheckpointError, match="cannot read the losses in"):
            read_held_out(finished, {}, task="kept")
    finally:
        path.write_text(kept)


def test_the_report_shows_losses_in_a_section_of_their_own(compared: tuple[ComparisonRecord, Path]):
    record, folder = compared
    _, found, rest = make_report([folder]).html().partition('id="c1-held-out"')
    assert found
    section = rest.partition("</section>")[0]
    assert "lower is better" in section
    assert f"{record.arms[0].losses['kept'].mean:.4f}" in section
