import io

from rich.console import Console

from moslora.cli.summary import print_evaluations
from moslora.evaluation.answers import Answer
from moslora.evaluation.recording import evaluation_record


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
    assert "mme, after: nothing could be read in 1 of 4 answers; they count as wrong" in lines
    assert "mme: log probability gave the same answer to 75% of 4" in lines
