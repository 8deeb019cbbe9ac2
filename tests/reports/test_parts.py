"""What the drawings and tables are made from."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moslora.errors import CheckpointError
from moslora.records import LayerPicture
from moslora.reports.accuracy import Point, cost_plot, pareto
from moslora.reports.disagreement import disagreement
from moslora.reports.drawing import looks, styled
from moslora.reports.inside import placed
from moslora.reports.learning import POINTS, learning_curves
from moslora.reports.reading import open_sources, read_lines
from moslora.reports.wording import amount, duration, points


def test_the_pareto_front_holds_what_no_other_beats():
    cheap, better, worse, best, twin = (
        Point("cheap", 1, 0.5),
        Point("better", 2, 0.6),
        Point("worse", 3, 0.55),
        Point("best", 4, 0.7),
        Point("twin", 1, 0.4),
    )
    assert pareto([worse, best, twin, better, cheap]) == [cheap, better, best]


def test_layers_are_placed_by_kind_and_block():
    def layer(name: str) -> LayerPicture:
        return LayerPicture(name=name, rank=2, update_norm=1, singular_values=[1, 0.5], effective_rank=1.5)

    blocks = placed([layer(f"model.layers.{n}.{kind}") for n in (3, 7) for kind in ("a.q_proj", "b.v_proj")])
    assert [(place.kind, place.depth) for place in blocks] == [
        ("q_proj", 3),
        ("v_proj", 3),
        ("q_proj", 7),
        ("v_proj", 7),
    ]
    nested = placed([layer(f"down.0.attentions.{n}.to_q") for n in range(3)])
    assert [place.depth for place in nested] == [0, 1, 2]
    assert [place.depth for place in placed([layer("lm_head")])] == [0]


def test_a_curve_is_the_mean_of_its_seeds_within_their_range():
    seeds = [[{"step": step, "loss": loss} for step in range(1, 11)] for loss in (1.0, 3.0)]
    (plot,) = learning_curves({"lora": seeds}, looks=looks(["lora"]), prefix="x")
    (axes,) = plot.figure.axes
    assert set(axes.lines[0].get_ydata()) == {2.0}
    low, high = axes.collections[0].get_datalim(axes.transData).intervaly
    assert (low, high) == (1.0, 3.0)
    assert "lowest to highest seed" in plot.caption


def test_a_step_that_only_an_interrupted_seed_logged_is_not_drawn():
    seeds = [[{"step": step, "loss": 2.0} for step in range(10, 50, 10)] for _ in range(2)]
    seeds[0].insert(1, {"step": 14, "loss": 0.1})
    (plot,) = learning_curves({"lora": seeds}, looks=looks(["lora"]), prefix="x")
    assert [*plot.figure.axes[0].lines[0].get_xdata()] == [10, 20, 30, 40]


def test_long_curves_are_averaged_and_other_values_left_out():
    lines: list[dict[str, Any]] = [{"step": step, "loss": float(step)} for step in range(1000)]
    lines += [{"step": 1001, "loss": float("nan")}, {"step": 1002, "train_runtime": 3.0}]
    (plot,) = learning_curves({"lora": [lines]}, looks=looks(["lora"]), prefix="x")
    drawn = plot.figure.axes[0].lines[0].get_ydata()
    assert len(drawn) <= POINTS
    assert sum(drawn) / len(drawn) == pytest.approx(499.5, rel=0.02)


def test_many_arms_get_a_panel_each_beside_the_baseline():
    arms = [f"arm {number}" for number in range(6)]
    curve = [[{"step": step, "loss": 1.0 / step} for step in range(1, 5)]]
    with styled():
        baselines = {arm: arms[number % 2] for number, arm in enumerate(arms[2:])}  # arm 0 and arm 1
        look = looks(arms, baselines=arms[:2])
        runs = dict.fromkeys(arms, curve) | {arms[1]: [[{"step": step, "loss": 0.5} for step in range(1, 5)]]}
        found = learning_curves(runs, looks=look, prefix="x", baselines=baselines)
    panels = [axes for axes in found[0].figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == arms[2:]
    assert {len(axes.lines) for axes in panels} == {2}
    assert [axes.lines[0].get_ydata()[0] for axes in panels] == [1.0, 0.5, 1.0, 0.5]
    assert [text.get_text() for text in found[0].figure.legends[0].get_texts()] == ["its baseline"]


def test_names_beside_points_lie_within_the_plot_and_apart():
    points = [Point(f"method {number}", 3.3 + number % 3 / 100, 0.8 + number / 500) for number in range(18)]
    points += [Point("small", 0.1, 0.7), Point("large", 130, 0.86)]
    with styled():
        plot = cost_plot(points, unit="x", title="y", looks=looks([p.label for p in points]), prefix="x")
        plot.figure.draw_without_rendering()
    (axes,) = plot.figure.axes
    boxes = [text.get_window_extent() for text in axes.texts]
    marks = {p.label: axes.transData.transform((p.cost, 100 * p.accuracy)) for p in points}
    assert {"small", "large", "method 17"} <= {text.get_text() for text in axes.texts}  # of those that no other beats
    assert all(axes.bbox.x0 - 8 < box.x0 and box.x1 < axes.bbox.x1 + 16 for box in boxes)
    for text, box in zip(axes.texts, boxes, strict=True):
        side = box.x0 if text.get_ha() == "left" else box.x1
        nearest = min(marks, key=lambda label: math.dist(marks[label], (side, (box.y0 + box.y1) / 2)))
        assert nearest == text.get_text()
        assert not any(box.contains(*mark) for mark in marks.values())
    assert not any(box.count_overlaps(boxes[:number]) for number, box in enumerate(boxes))


def answer(index: int, is_correct: bool, **fields: Any) -> dict[str, Any]:
    return {"index": index, "expected": "a", "predicted": "a" if is_correct else "b", "is_correct": is_correct} | fields


def test_only_questions_with_one_right_answer_stand_side_by_side():
    first = [answer(0, True), answer(1, True), answer(2, False), answer(3, False)]
    second = [answer(0, True), answer(1, False), answer(2, True), answer(3, False, predicted=None, text="unclear")]
    counts, table = disagreement(first, second, names=("lora", "moslora"), task="arc-easy", rows=10)
    assert counts.text == (
        "arc-easy, 4 questions: both right 1, only lora right 1, only moslora right 1, both wrong 1."
    )
    assert [row[0].text for row in table.rows] == ["2", "3"]
    assert [cell.remark for cell in table.rows[0][2:]] == ["right", "wrong"]
    (_, shortened) = disagreement(first * 1, second, names=("a", "b"), task="arc-easy", rows=2)
    assert "(all)" in shortened.caption


def test_an_answer_that_is_worth_a_part_says_its_credit():
    first, second = [answer(0, True)], [answer(0, False, credit=0.3)]
    _, table = disagreement(first, second, names=("lora", "moslora"), task="textvqa", rows=10)
    assert [cell.remark for cell in table.rows[0][2:]] == ["right", "credit 0.3"]


def test_built_in_questions_are_shown_only_for_their_own_answers():
    from moslora.data.everyday import everyday

    samples = everyday("test")[:30]
    right = [answer(n, True, expected=one["answer"], kind=one["kind"]) for n, one in enumerate(samples)]
    wrong = [one | {"is_correct": False, "predicted": "x"} for one in right]
    _, table = disagreement(right, wrong, names=("a", "b"), task="everyday", rows=4)
    assert table.rows[0][0].text == f"1. {samples[0]['instruction']}"
    other = [one | {"expected": "answer9"} for one in right]
    _, table = disagreement(other, wrong, names=("a", "b"), task="everyday", rows=4)
    assert table.rows[0][0].text == "1"


def test_answers_to_other_questions_are_not_compared():
    assert disagreement([answer(0, True)], [answer(1, False)], names=("a", "b"), task="x", rows=4) == []
    assert disagreement([], [], names=("a", "b"), task="x", rows=4) == []


def test_a_line_cut_off_by_a_kill_is_left_out_and_a_damaged_one_refused(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"metrics.jsonl, line 2 is not JSON"):
        read_lines(path)


def test_runs_with_one_name_are_told_apart(tmp_path: Path, run_folder: Path):
    import shutil

    shutil.copytree(run_folder, tmp_path / "other" / "demo")
    labels = [run.label for run in open_sources([run_folder, tmp_path / "other" / "demo", run_folder]).runs]
    assert labels == [f"{tmp_path.name}/demo", "other/demo"]


def test_runs_that_are_not_there_are_named(write_comparison: Callable[..., Path]):
    (found,) = open_sources([write_comparison()]).comparisons
    assert [*found.runs["moslora"]] == ["1", "2", "3"]
    assert len(found.missing) == 9


def test_numbers_in_words():
    assert [amount(value) for value in (None, 900, 28_400_000)] == ["–", "900", "28.4M"]
    assert [duration(value) for value in (None, 4.25, 480, 36_000)] == ["–", "4.25 s", "8 min", "10.0 h"]
    assert points(-0.031, -0.05, -0.01).text == "−3.1"
    assert points(-0.031, -0.05, 0.01).remark == "−5.0 to +1.0"
