import csv
import io

import pytest
from rich.console import Console

from moslora.comparison.tables import count_text, csv_text, footnotes, latex, markdown, terminal
from moslora.records import ArmResult, ComparisonRecord, Cost, Difference, Scored, TaskResult, TuningResult

COST = Cost(seconds_per_step=0.4567, peak_memory_bytes=1_230_000_000, trainable=28_300_000, steps=20)


def result(mean, half=0.01, seeds=3):
    low, high = (mean - half, mean + half) if seeds > 1 else (None, None)
    return TaskResult(mean=mean, low=low, high=high, per_seed={str(seed): mean for seed in range(1, seeds + 1)})


def row(arm, *means, seeds=3, **changes):
    tasks = dict(zip(["piqa", "arc", "average"], [result(mean, seeds=seeds) for mean in means], strict=False))
    start = {"method": arm, "trainable": 28_300_000, "train_seconds": 431.2, "peak_memory_bytes": 2_340_000_000}
    return ArmResult(arm=arm, tasks=tasks, **{**start, **changes})


def difference(task, mean, half, p):
    return Difference(
        arm="moslora_50%",
        baseline="lora",
        task=task,
        mean=mean,
        low=mean - half,
        high=mean + half,
        p_value=p,
        p_adjusted=p,
        seeds=3,
        verdict=f"verdict on {task}",
    )


DIFFERENCES = [
    difference("piqa", 0.04, 0.02, 0.01),
    difference("arc", -0.01, 0.03, 0.5),
    difference("average", 0.015, 0.02, 0.1),
]


def record(*arms, tasks=("piqa", "arc"), differences=DIFFERENCES, **changes):
    arms = arms or (row("lora", 0.7, 0.5, 0.6), row("moslora_50%", 0.74, 0.49, 0.615))
    start = {"plan": {}, "baseline": "lora", "tasks": list(tasks), "verdict": "The verdict."}
    return ComparisonRecord(arms=list(arms), differences=differences, **{**start, **changes})


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_markdown_has_the_shape_of_table_4_with_the_best_in_bold():
    text = markdown(record())
    head, _, lora, moslora, *_ = cells(text)
    assert text.startswith("The verdict.\n\n| method |")
    assert head == ["method", "parameters", "train s", "memory GB", "seeds", "piqa", "arc", "average"]
    assert lora == ["lora", "28.3M", "431", "2.34", "3", "70.0 ± 1.0", "**50.0 ± 1.0**", "60.0 ± 1.0"]
    assert moslora[5:] == ["**74.0 ± 1.0**", "49.0 ± 1.0", "**61.5 ± 1.0**"]


def test_differences_stand_under_it_and_only_what_is_shown_is_bold():
    *_, head, _, moslora = cells(markdown(record()))
    assert head == ["difference in points", "piqa", "arc", "average", "verdict"]
    assert moslora == [
        "moslora_50% - lora",
        "**+4.0 (2.0 to 6.0)**",
        "-1.0 (-4.0 to 2.0)",
        "+1.5 (-0.5 to 3.5)",
        "verdict on average",
    ]


def test_arms_that_look_alike_are_both_the_best():
    rows = cells(markdown(record(row("a", 0.70001, 0.4, 0.5), row("b", 0.70002, 0.5, 0.6), differences=[])))
    assert [line[5] for line in rows[2:]] == ["**70.0 ± 1.0**"] * 2


def test_the_average_of_one_task_is_not_repeated():
    rows = cells(markdown(record(row("a", 0.7), tasks=["piqa"], differences=[])))
    assert rows[0][5:] == ["piqa"]


def test_one_seed_has_no_half_width_and_an_interval_cut_at_1_keeps_its_width():
    cut = row("b", 0.99)
    cut.tasks["piqa"] = TaskResult(mean=0.99, low=0.95, high=1.0, per_seed={"1": 0.98, "2": 1.0})
    rows = cells(markdown(record(row("a", 0.7, seeds=1), cut, tasks=["piqa"], differences=[])))
    assert [line[4:] for line in rows[2:]] == [["1", "70.0"], ["2", "**99.0 ± 4.0**"]]


def test_failed_arms_stay_in_the_table_with_their_reason():
    failed = ArmResult(arm="loha", method="loha", failed={"2": "out of memory"}, cannot="cannot merge 8-bit layers")
    text = markdown(record(row("lora", 0.7, 0.5, 0.6), failed, is_complete=False, notes=["dora: not run"]))
    assert ["loha", "–", "–", "–", "0", "–", "–", "–"] in cells(text)
    assert (
        "- The comparison is not complete.\n- loha: cannot merge 8-bit layers\n- loha, seed 2: failed: out of" in text
    )


def test_seconds_and_memory_come_from_the_measurement_only_if_every_arm_was_measured():
    measured = row("lora", 0.7, 0.5, 0.6, cost=COST)
    both = record(measured, row("dora", 0.7, 0.5, 0.6, cost=COST), ArmResult(arm="failed", method="loha"))
    assert cells(markdown(both))[0][2] == "s / step"
    assert cells(markdown(both))[2][2:4] == ["0.457", "1.23"]
    assert any("measured apart from the runs" in note for note in footnotes(both))
    one = record(measured, row("dora", 0.7, 0.5, 0.6))
    assert cells(markdown(one))[2][2:4] == ["431", "2.34"]
    assert any("of the training runs themselves" in note for note in footnotes(one))


def test_latex_escapes_labels_and_sets_the_best_in_bold():
    text = latex(record())
    assert r"moslora\_50\% & 28.3M & 431 & 2.34 & 3 & \textbf{74.0 $\pm$ 1.0} & 49.0 $\pm$ 1.0 &" in text
    assert r"moslora\_50\% - lora & \textbf{+4.0 (2.0 to 6.0)} & -1.0" in text
    assert text.count(r"\begin{tabular}{lrrrrrrr}") == text.count(r"\begin{tabular}{lrrrl}") == 1
    assert all(line.startswith("%") for line in text.splitlines()[:3])


def test_markdown_escapes_the_bar():
    assert "| a\\|b |" in markdown(record(row("a|b", 0.7, 0.5, 0.6), differences=[]))


def test_csv_holds_the_raw_numbers_of_each_arm_and_task():
    rows = list(csv.DictReader(io.StringIO(csv_text(record()))))
    assert [(line["arm"], line["task"]) for line in rows[2:4]] == [("lora", "average"), ("moslora_50%", "piqa")]
    assert (rows[0]["difference_mean"], rows[0]["measured_seconds_per_step"]) == ("", "")
    found = rows[3]
    assert (found["mean"], found["trainable"], found["seeds"]) == ("0.74", "28300000", "3")
    assert (found["difference_mean"], found["difference_p_adjusted"]) == ("0.04", "0.01")
    assert found["difference_verdict"] == "verdict on piqa"


def test_the_terminal_shows_labels_as_they_are():
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*terminal(record(row("lora [50%]", 0.7, 0.5, 0.6), differences=[])))
    text = console.export_text()
    assert "lora [50%]" in text
    assert "70.0 ± 1.0" in text


@pytest.mark.parametrize(
    ("count", "text"), [(28_300_000, "28.3M"), (460_800, "461k"), (1_240_000_000, "1.2B"), (12, "12"), (None, "–")]
)
def test_parameters_are_counted_in_millions(count, text):
    assert count_text(count) == text


def test_the_losses_that_chose_the_learning_rates_are_shown():
    rates = [
        TuningResult(arm="lora", learning_rate=rate, validation_loss=loss, run="x", is_chosen=rate == 0.001)
        for rate, loss in ((0.0003, 0.2), (0.001, 0.1), (0.003, None))
    ]
    record = ComparisonRecord(plan={}, baseline="lora", tasks=["piqa"], arms=[row("lora", 0.5)], tuning=rates)
    line = "| lora | 0.2000 at 0.0003, 0.1000 at 0.001 (chosen), – at 0.003 |"
    assert line in markdown(record)
    assert "0.1000 at 0.001 (chosen)" in latex(record)
    assert "learning rates of" not in markdown(record.model_copy(update={"tuning": []}))


def test_what_guessing_gets_and_what_intervals_count_are_said_under_the_table():
    known = {"chance": {"piqa": 0.5, "arc": 0.2502}, "groups": {"piqa": 96}}
    found = footnotes(ComparisonRecord(plan={}, baseline="lora", tasks=["piqa", "arc"], arms=[], **known))
    assert "Guessing would get 50% of piqa and 25.02% of arc right." in found
    assert "piqa: intervals count 96 groups of questions that depend on each other, not single questions." in found


def test_what_accuracy_is_where_answers_are_not_just_right_or_wrong_is_said_under_the_table():
    scored = {
        "mmbench": Scored(rule="exact_matching", is_counted=True, units=4329, answers=17316),
        "mme": Scored(rule="yes_no", is_counted=False, units=1187, answers=2374),
    }
    chance = {"piqa": 0.5, "mmbench": 0.004, "mme": 0.375}
    found = footnotes(
        ComparisonRecord(plan={}, baseline="lora", tasks=[*chance], arms=[], scored=scored, chance=chance)
    )
    assert "Guessing would get 50% of piqa and 0.4% of mmbench right." in found
    assert "Guessing would get 37.5% of the credit of mme." in found
    assert "mmbench: accuracy is the share right of 4,329 units of 17,316 answers, by the rule exact_matching." in found
    assert "mme: accuracy is the mean credit (0 to 1) of 1,187 units of 2,374 answers, by the rule yes_no." in found
