import io
import re

from rich.console import Console

from moslora.cli.summary import print_evaluations, print_run
from moslora.evaluation.answers import Answer
from moslora.evaluation.recording import evaluation_record
from moslora.records import CoverageRecord, PartRecord, RunRecord


def printed(*evaluations):
    stream = io.StringIO()
    print_evaluations(Console(file=stream, width=120), evaluations)
    return stream.getvalue()


def test_a_task_outside_the_built_in_ones_is_shown_with_how_it_was_scored():
    answers = [
        Answer(n, "yes", "no", n > 0, unit=str(n // 2), unit_rule="mean_and_all", options=2, is_read=n != 0, kind="ocr")
        for n in range(4)
    ]
    asked = {"task": "mme", "scoring": "generation", "prompt": "plain", "wall_seconds": 1.0, "rule": "yes_no"}
    before, after = (evaluation_record(answers, when=when, **asked) for when in ("before", "after"))
    checked = evaluation_record(answers, when="after", **asked | {"scoring": "log_probability", "rule": None})
    checked.agreement = 0.75
    lines = printed(before, after, checked).splitlines()
    row = next(line for line in lines if line.startswith("mme   after"))
    assert row.split()[2] == "62.5%"
    assert row.split()[-3:] == ["37.5%", "1/2", "generation"]
    assert lines.count("mme: accuracy is the mean credit (0 to 1) of 2 units of 4 answers, by the rule yes_no") == 1
    assert "mme, after: nothing could be read from 1 of 4 answers; they count as wrong" in lines
    assert "mme: log probability gave the same answer to 75% of 4" in lines


def test_a_terminal_of_60_columns_shows_whole_words_and_says_a_note_once(tmp_path):
    note = "resumed after an interruption; the times leave out a process that was killed"
    record = RunRecord(
        recipe={"name": "mine", "evaluation": {"tasks": ["everyday"]}},
        seed=1,
        validation_loss=1.25,
        validation_perplexity=3.49,
        train_loss=1.5,
        steps=120,
        notes=[note, "3 samples were cut"],
        evaluations=[pictured("after", 0.5, kinds=("colour",))],
    )
    lines = {}
    for is_terminal in (True, False):
        stream = io.StringIO()
        console = Console(file=stream, width=60, force_terminal=is_terminal, no_color=True, soft_wrap=True)
        print_run(console, record, tmp_path, said=["3 samples were cut"])
        lines[is_terminal] = [line.rstrip() for line in re.sub("\x1b[^m]*m", "", stream.getvalue()).splitlines()]
    shown = [line for line in lines[True] if str(tmp_path) not in line]
    assert max(map(len, shown)) <= 60
    start = next(n for n, line in enumerate(shown) if line.startswith("note"))
    assert shown[start : start + 2] == [
        "note                resumed after an interruption; the times",
        "                    leave out a process that was killed",
    ]
    assert f"note                {note}" in lines[False]  # in a file a note is one line
    assert "3 samples were cut" not in "".join(lines[True])
    assert "validation loss     1.2500 per token, of the weights kept" in lines[True]
    assert "perplexity          3.49 on the validation samples" in lines[True]


def pictured(when, share, *, kinds=("colour", "finegrained_perception (instance-level)"), count=40):
    """Every other question of each kind is of the commonest answer."""
    answers = []
    for n in range(count):
        expected = "a" if n % 4 < 2 else str(n)
        answers.append(Answer(n, expected, "b", n < share * count, kind=kinds[n % len(kinds)]))
    asked = {"task": "easy-vqa", "scoring": "generation", "prompt": "chat", "wall_seconds": 1.0, "rule": "short"}
    return evaluation_record(answers, when=when, **asked)


def test_kinds_stand_beside_the_commonest_answer_and_the_controls_in_80_columns():
    moments = {"before": 0.1, "after": 0.9, "picture blanked": 0.3, "question removed": 0.2}
    lines = printed(*(pictured(when, share) for when, share in moments.items())).splitlines()
    start = lines.index("easy-vqa: accuracy by kind of question, % (95 % interval)")
    table = lines[start + 1 :]
    names = [name.strip() for name in table[0].split("  ") if name.strip()]
    assert names == ["kind", "before", "after", "commonest", "no picture", "no question"]
    assert all(len(line.rstrip()) <= 80 for line in table)
    (colour,) = (line for line in table if line.startswith("colour"))
    assert [part for part in colour.split() if "(" not in part] == ["colour", "10", "90", "50", "30", "20"]
    (whole,) = (line for line in table if line.startswith("all"))
    assert [part for part in whole.split() if "(" not in part] == ["all", "10", "90", "50", "30", "20"]
    assert lines[-1] == "commonest answers: a (colour), a (finegrained perception (instance-level))"


def test_controls_made_before_stand_beside_a_new_evaluation():
    stream = io.StringIO()
    print_evaluations(
        Console(file=stream, width=80), [pictured("evaluated", 0.9)], beside=[pictured("picture blanked", 0.3)]
    )
    head = next(line for line in stream.getvalue().splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "evaluated", "commonest", "no", "picture"]
    assert stream.getvalue().count("picture blanked") == 0  # it is not evaluated again


def test_the_parts_of_a_model_fit_60_columns_of_a_terminal_and_stand_whole_in_a_file(tmp_path):
    shared = {"quantised": 0, "dropouts": [0.05], "mixers": ["orthogonal"], "mixer_parameters": 53_760, "dead": []}
    parts = [
        PartRecord(part="language", layers=211, adapted=210, ranks=[16], alphas=[32], parameters=4_938_240, **shared),
        PartRecord(part="vision", layers=48, adapted=47, ranks=[16, 8], alphas=[32], parameters=1_179_648, **shared),
        PartRecord(part="projector", layers=2, adapted=0, quantised=0, whole_parameters=1_124_352, dead=[]),
    ]
    record = RunRecord(
        recipe={"name": "mine", "evaluation": {"tasks": []}},
        seed=1,
        coverage=CoverageRecord(adapted=1, total=2, parts=parts),
    )
    tables = {}
    for width in (60, 120, None):
        stream = io.StringIO()
        console = Console(file=stream, width=width or 60, force_terminal=bool(width), no_color=True, soft_wrap=True)
        print_run(console, record, tmp_path)
        lines = [line.rstrip() for line in re.sub("\x1b[^m]*m", "", stream.getvalue()).splitlines()]
        start = next(n for n, line in enumerate(lines) if line.startswith("part "))
        tables[width] = lines[start : start + 4]
    assert max(map(len, tables[60])) <= 60
    assert tables[60][0].split() == ["part", "adapted", "rank", "mixer", "parameters"]
    assert tables[60][2].split() == ["vision", "47", "of", "48", "16,", "8", "orthogonal", "1,179,648"]
    assert tables[120] == tables[None]
    assert tables[120][0].split()[4:] == ["dropout", "mixer", "parameters", "quantised", "gradient"]
