import json

import numpy as np
import pytest

from moslora.comparison.matrix import Arm
from moslora.comparison.results import arm_result, chance_notes, guesses, read_correct, read_questions, read_scores
from moslora.data.everyday import everyday
from moslora.errors import CheckpointError
from moslora.evaluation.scores import Answer
from moslora.records import Cost, EvaluationRecord, Parameters, RunRecord, Scored
from moslora.runs.scoring import answers_path, save_answers


def run_folder(
    folder, right, *, expected="abab", kinds=None, scoring="log_probability", options="abcd", groups=None, counts=None
):
    """A run's folder with one answer a question of everyday; `right` such as "1101"."""
    folder.mkdir(parents=True)
    RunRecord(recipe={"evaluation": {"scoring": scoring}}, seed=1).save(folder / "run.json")
    answers = [
        Answer(
            index,
            label,
            label if mark == "1" else "z",
            mark == "1",
            kind=kinds[index] if kinds else None,
            scores=dict.fromkeys(options, -1.0) or None,
            options=counts[index] if counts else None,
            group=groups[index] if groups else None,
        )
        for index, (label, mark) in enumerate(zip(expected, right, strict=True))
    ]
    save_answers(answers_path(folder / "answers", task="everyday", when="after", scoring=scoring), answers)
    return folder


def record(*, trainable=100, train=10.0, memory=2_000):
    seconds = {"all": train + 5, "train": train}
    parameters = Parameters(trainable=trainable, total=1000)
    return RunRecord(recipe={}, seed=1, parameters=parameters, wall_seconds=seconds, peak_memory_bytes=memory)


ARM = Arm("dora r=8", "dora", "dora", {"r": 8, "use_dora": True}, 8, 0.5, "dora r=8")
COST = Cost(seconds_per_step=0.5, peak_memory_bytes=1_000, trainable=100, steps=10)


def test_answers_are_read_in_the_order_of_the_questions(tmp_path):
    assert read_correct(run_folder(tmp_path / "a", "1101"), "everyday") == [True, True, False, True]


def test_the_scoring_the_recipe_names_is_read(tmp_path):
    folder = run_folder(tmp_path / "a", "1101", scoring="generation")
    (folder / "answers" / "everyday-after-log_probability.jsonl").write_text("not these")
    assert read_correct(folder, "everyday") == [True, True, False, True]


def test_scores_are_vectors_by_arm_seed_and_task(tmp_path):
    folders = {
        "lora": {1: run_folder(tmp_path / "a", "1101"), 2: run_folder(tmp_path / "b", "0001")},
        "dora": {2: run_folder(tmp_path / "c", "1111")},
    }
    scores = read_scores(folders, tasks=["everyday"])
    assert {arm: list(by_seed) for arm, by_seed in scores.items()} == {"lora": [1, 2], "dora": [2]}
    np.testing.assert_array_equal(scores["lora"][2]["everyday"], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected": "abaa"}, "question 3 expecting b and question 3 expecting a"),
        ({"expected": "ababa", "right": "11111"}, "4 questions and 5"),
        ({"kinds": ["is_a"] * 4}, "question 0 expecting a and question 0 expecting a, kinds None and is_a"),
    ],
)
def test_runs_on_other_questions_are_refused(tmp_path, changes, message):
    folders = {
        "lora": {1: run_folder(tmp_path / "first", "1101")},
        "dora": {1: run_folder(tmp_path / "second", **{"right": "1111", **changes})},
    }
    with pytest.raises(
        CheckpointError, match=f"first and .*second did not answer the same questions of everyday .{message}"
    ):
        read_scores(folders, tasks=["everyday"])


def test_missing_answers_say_what_to_do(tmp_path):
    folder = run_folder(tmp_path / "a", "1101")
    with pytest.raises(CheckpointError, match=r"no answers to piqa at .*piqa-after-log_probability.jsonl; let the run"):
        read_correct(folder, "piqa")
    with pytest.raises(CheckpointError, match="is not a folder, so it is not a run"):
        read_correct(tmp_path / "none", "everyday")


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", json.dumps({"index": 0, "expected": "a"}), '{"index": 0, "expected": "a", "is_correct": 1}'],
)
def test_damaged_answers_are_refused(tmp_path, text):
    folder = run_folder(tmp_path / "a", "1101")
    (folder / "answers" / "everyday-after-log_probability.jsonl").write_text(text + "\n")
    with pytest.raises(CheckpointError, match=r"cannot read the answers in .*; run .* again"):
        read_correct(folder, "everyday")


def test_no_answers_are_no_result(tmp_path):
    with pytest.raises(CheckpointError, match="holds no answers"):
        read_correct(run_folder(tmp_path / "a", "", expected=""), "everyday")


def notes_of(folders):
    return chance_notes(read_scores(folders, tasks=["everyday"]), read_questions(folders, tasks=["everyday"]))


def test_a_task_that_no_arm_is_shown_to_have_learned_is_told(tmp_path):
    expected, guessed, learned = "abcd" * 5, "1000" * 5, "1101" * 5
    low = {seed: run_folder(tmp_path / f"low{seed}", guessed, expected=expected) for seed in (1, 2)}
    one = run_folder(tmp_path / "one", "1010" + guessed[4:], expected=expected)
    note = "everyday: no arm is shown to do better than guessing (25%): nothing to compare yet"
    assert notes_of({"lora": low, "dora": {1: one}}) == [note]
    high = run_folder(tmp_path / "high", learned, expected=expected)
    assert notes_of({"lora": low, "dora": {1: high}}) == []
    again = run_folder(tmp_path / "again", learned[4:] + "1111", expected=expected)
    assert notes_of({"lora": low, "dora": {1: high, 2: again}}) == []
    assert notes_of({}) == []


def test_nothing_is_said_of_guessing_where_answers_are_generated(tmp_path):
    folder = run_folder(tmp_path / "a", "0000", scoring="generation", options="")
    assert notes_of({"lora": {1: folder}}) == []


def test_chance_and_groups_are_read_from_the_answers(tmp_path):
    folder = run_folder(tmp_path / "a", "1101", counts=[2, 5, 4, 4], groups=["x", "x", "y", "y"])
    found = read_questions({"dora": {}, "lora": {1: folder}}, tasks=["everyday"])["everyday"]
    assert (found.number, found.groups) == (4, ["x", "x", "y", "y"])
    np.testing.assert_allclose(found.chance, [0.5, 0.2, 0.25, 0.25])
    np.testing.assert_allclose(guesses({"everyday": found})["everyday"], found.chance)
    assert read_questions({"dora": {}}, tasks=["everyday"]) == {}


def test_guessing_is_told_by_the_number_of_options_of_these_questions(tmp_path):
    folder = run_folder(tmp_path / "a", "1" * 12 + "0" * 8, expected="ab" * 10, counts=[2] * 20)
    note = "everyday: no arm is shown to do better than guessing (50%): nothing to compare yet"
    assert notes_of({"lora": {1: folder}}) == [note]
    again = run_folder(tmp_path / "b", "1" * 12 + "0" * 8, expected="ab" * 10, counts=[4] * 20)
    assert notes_of({"lora": {1: again}}) == []


def test_the_groups_of_the_built_in_questions_are_known_where_old_answers_lack_them(tmp_path):
    asked = everyday("test")[:8]
    labels, kinds = [question["answer"] for question in asked], [question["kind"] for question in asked]
    folder = run_folder(tmp_path / "a", "11010101", expected=labels, kinds=kinds)
    assert read_questions({"lora": {1: folder}}, tasks=["everyday"])["everyday"].groups == [q["group"] for q in asked]
    other = run_folder(tmp_path / "b", "11010101", expected=labels, kinds=kinds[::-1])
    assert read_questions({"lora": {1: other}}, tasks=["everyday"])["everyday"].groups is None


def test_what_a_diverged_run_guesses_is_nothing_where_the_options_are_not_known(tmp_path):
    folder = run_folder(tmp_path / "a", "1101", scoring="generation", options="")
    found = read_questions({"lora": {1: folder}}, tasks=["everyday"])
    np.testing.assert_array_equal(guesses(found)["everyday"], [0, 0, 0, 0])


def test_a_row_has_the_median_seconds_and_the_largest_memory():
    runs = {1: record(train=10), 2: record(train=12, memory=5_000), 3: record(train=90)}
    row = arm_result(ARM, runs, tuned_rate=1e-3, cost=COST)
    assert (row.arm, row.method, row.rank, row.fraction, row.learning_rate) == ("dora r=8", "dora", 8, 0.5, 1e-3)
    assert row.options == {"r": 8, "use_dora": True}
    assert (row.train_seconds, row.peak_memory_bytes, row.trainable, row.cost) == (12, 5_000, 100, COST)


def test_a_row_without_runs_is_empty_but_for_what_was_measured():
    row = arm_result(ARM, {}, tuned_rate=None, cost=COST)
    assert (row.train_seconds, row.peak_memory_bytes, row.trainable, row.tasks) == (None, None, 100, {})
    assert arm_result(ARM, {}, tuned_rate=None, cost=None).trainable is None


def test_runs_that_train_different_numbers_of_parameters_are_refused():
    with pytest.raises(
        CheckpointError, match=r"dora r=8 train different numbers of parameters \(100 with seed 1, 90 with"
    ):
        arm_result(ARM, {1: record(), 2: record(trainable=90)}, tuned_rate=None, cost=None)


def scored_folder(folder, credits, *, rule="vqa", **fields):
    """A run's folder with answers to everyday that have these credits, in the units and weights given by `fields`."""
    folder.mkdir(parents=True)
    numbers = {"correct": 0, "total": 1, "accuracy": 0, "low": 0, "high": 1}
    scored = Scored(rule=rule, is_counted=False, units=1, answers=1)
    found = EvaluationRecord(task="everyday", when="after", scoring="generation", scored=scored, **numbers)
    RunRecord(recipe={"evaluation": {"scoring": "generation"}}, seed=1, evaluations=[found]).save(folder / "run.json")
    answers = [
        Answer(n, "a", "b", credit == 1, credit=credit, **{name: values[n] for name, values in fields.items()})
        for n, credit in enumerate(credits)
    ]
    save_answers(answers_path(folder / "answers", task="everyday", when="after", scoring="generation"), answers)
    return folder


def test_credits_are_read_as_parts_with_weights_and_steps(tmp_path):
    steps, weights = [0.1] * 4, [1.0, 1.0, 2.0, 4.0]
    folder = scored_folder(tmp_path / "a", [1.0, 0.3, 0.0, 0.9], step=steps, weight=weights)
    scores = read_scores({"lora": {1: folder}}, tasks=["everyday"])["lora"][1]["everyday"]
    np.testing.assert_array_equal(scores, [1, 0.3, 0, 0.9])
    found = read_questions({"lora": {1: folder}}, tasks=["everyday"])["everyday"]
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_array_equal(found.steps, steps)
    assert found.scored == Scored(rule="vqa", is_counted=False, units=4, answers=4)
    assert (found.chance, found.mean_chance) == (None, None)


def test_units_of_several_right_or_wrong_answers_are_vectors_of_0_and_1(tmp_path):
    folder = scored_folder(tmp_path / "a", [1.0, 1.0, 1.0, 0.0], unit=["x", "x", "y", "y"], options=[2] * 4)
    scores = read_scores({"lora": {1: folder}}, tasks=["everyday"])["lora"][1]["everyday"]
    assert (scores.dtype, scores.tolist()) == (np.int8, [1, 0])
    found = read_questions({"lora": {1: folder}}, tasks=["everyday"])["everyday"]
    assert (found.number, found.weights, found.steps) == (2, None, None)
    np.testing.assert_array_equal(found.chance, [0.25, 0.25])
    assert found.scored == Scored(rule="vqa", is_counted=True, units=2, answers=4)


def test_questions_that_are_right_or_wrong_and_count_alike_have_nothing_to_be_said_of(tmp_path):
    found = read_questions({"lora": {1: run_folder(tmp_path / "a", "1101")}}, tasks=["everyday"])["everyday"]
    assert (found.weights, found.steps, found.scored) == (None, None, None)


def test_what_guessing_gets_counts_by_the_questions_weights(tmp_path):
    folder = scored_folder(tmp_path / "a", [1.0, 0.0], options=[2, 4], weight=[1.0, 3.0])
    found = read_questions({"lora": {1: folder}}, tasks=["everyday"])["everyday"]
    assert found.mean_chance == pytest.approx((0.5 + 3 * 0.25) / 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "other"}, "by the rules vqa and other"),
        ({"weight": [1.0, 2.0]}, "question 1 alone, weight 1, step 0.1 and question 1 alone, weight 2, step 0.1"),
        ({"unit": ["x", "x"]}, r"question 0 alone, weight 1, step 0.1 and question 0 in unit x \(all\), weight 1"),
    ],
)
def test_runs_scored_in_other_ways_are_refused(tmp_path, fields, message):
    first = scored_folder(tmp_path / "first", [0.3, 0.6], step=[0.1, 0.1])
    second = scored_folder(tmp_path / "second", [0.3, 0.6], step=[0.1, 0.1], **fields)
    with pytest.raises(CheckpointError, match=f"first and .*second did not score everyday alike .{message}"):
        read_scores({"lora": {1: first}, "dora": {1: second}}, tasks=["everyday"])


def test_units_that_do_not_fit_together_are_damaged_answers(tmp_path):
    folder = scored_folder(tmp_path / "a", [1.0, 1.0], unit=["x", "x"], weight=[1.0, 2.0])
    with pytest.raises(CheckpointError, match=r"cannot read the answers in .*unit x differ in weight"):
        read_scores({"lora": {1: folder}}, tasks=["everyday"])
