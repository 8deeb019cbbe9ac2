"""What a page shows of runs that answer about pictures."""

import base64
import json
import re
from pathlib import Path

import pytest

from moslora.errors import CheckpointError
from moslora.evaluation.answers import Answer
from moslora.evaluation.recording import evaluation_record
from moslora.records import RunRecord
from moslora.reports.page import make_report
from tests.reports.conftest import comparison_record
from tests.reports.pictured import write_pictured_run


@pytest.fixture
def pictured(tmp_path: Path) -> Path:
    write_pictured_run(tmp_path / "pictures")
    return tmp_path / "pictures"


def sections(*sources: Path) -> dict[str, str]:
    """The HTML of every section, by name."""
    parts = make_report(sources).html().split("<section id=")[1:]
    return {part.split('"')[1]: part for part in parts}


def rows(section: str, *, caption: str) -> dict[str, list[str]]:
    """A table's cells as text, by the row's name; `head` is the first row."""
    table = section[section.index(f'aria-label="{caption}') :].partition("</table>")[0]
    found = {}
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
        name, *cells = re.findall(r"<t[hd][^>]*>\s*(.*?)\s*</t[hd]>", row, re.DOTALL)
        found["head" if 'scope="col"' in row else name.partition("<small>")[0]] = cells
    return found


def test_each_task_has_its_accuracy_by_kind_beside_what_needs_no_picture(pictured: Path):
    found = sections(pictured)
    easy = rows(found["runs-task-easy-vqa"], caption="easy-vqa: accuracy by kind")
    assert easy["head"] == ["before training", "after training", "always the commonest answer", "picture blanked"]
    assert [*easy] == ["head", "colour", "shape", "yes/no", "all"]
    record = RunRecord.load(pictured / "run.json")
    after = next(one for one in record.evaluations if (one.task, one.when) == ("easy-vqa", "after"))
    own = after.majority_by_kind["shape"]
    assert easy["shape"][2] == (
        f"{100 * own.accuracy:.1f}<small class=range>{own.answer}: {100 * own.low:.1f} to {100 * own.high:.1f}</small>"
    )
    assert after.majority
    assert easy["all"][2].startswith(
        f"{100 * after.majority.accuracy:.1f}<small class=range>{100 * after.majority.low:.1f} to "
    )
    bench = rows(found["runs-task-mmbench"], caption="mmbench: accuracy by kind")
    assert bench["head"][-2:] == ["picture blanked", "question removed"]
    assert "coarse perception" in bench
    assert "runs-results" in found
    assert "By kind of question</summary>" not in found["runs-results"]  # said once


def test_the_rule_and_the_answers_that_none_could_be_read_in_are_told(pictured: Path):
    section = sections(pictured)["runs-task-mmbench"]
    assert "Rule for reading the answers: one option&#39;s letter; all passes are right." in section
    unread = [one.unread for one in RunRecord.load(pictured / "run.json").evaluations if one.task == "mmbench"]
    assert unread[1]
    assert f"after training {100 * unread[1] / 240:.1f} % ({unread[1]} of 240)" in section


def test_pairs_of_questions_are_counted_as_units(pictured: Path):
    record = RunRecord.load(pictured / "run.json")
    answers = [
        Answer(n, "yes", "yes" if n % 3 else "no", n % 3 > 0, kind="ocr", unit=str(n // 2), unit_rule="mean_and_all")
        for n in range(12)
    ]
    asked = {"task": "mme", "when": "after", "scoring": "generation", "prompt": "chat", "wall_seconds": 1.0}
    record.evaluations = [evaluation_record(answers, rule="the word yes or no", **asked)]
    record.save(pictured / "run.json")
    section = sections(pictured)["runs-task-mme"]
    assert '<th scope="row">ocr<small>6 units</small></th>' in " ".join(section.split()).replace("> <", "><")
    told = "Accuracy is the mean credit (0 to 1) of 6 units of 12 answers, by the rule the word yes or no."
    assert told in section


def test_six_questions_are_shown_with_picture_answer_and_truth(pictured: Path):
    section = sections(pictured)["runs-task-easy-vqa"]
    images = re.findall(r"<img [^>]*>", section)
    assert len(images) == 6
    kept = json.loads((pictured / "answers" / "easy-vqa-examples.json").read_text())["examples"]
    for image, example in zip(images, kept, strict=True):
        (content,) = re.findall(r'src="data:image/png;base64,([^"]*)"', image)
        assert base64.b64decode(content) == base64.b64decode(example["pictures"][0]["content"])
        right = example["expected"]
        assert f'alt="Picture of question {example["index"] + 1}; the right answer is {right}"' in image
    assert section.count("<dt>picture blanked</dt>") == 6
    first = kept[0]
    mark = "right" if first["given"]["is_correct"] else "wrong"
    assert f'<dt>answer</dt><dd>{first["given"]["predicted"]} <small class="{mark}">{mark}</small>' in section


def test_what_no_answer_could_be_read_in_is_quoted(pictured: Path):
    path = pictured / "answers" / "easy-vqa-examples.json"
    kept = json.loads(path.read_text())
    for example, text in zip(kept["examples"], ("I cannot\nsee", " ", None), strict=False):
        example["given"] = {"predicted": None, "text": text, "is_correct": False}
    path.write_text(json.dumps(kept))
    section = sections(pictured)["runs-task-easy-vqa"]
    assert section.count('<q>I cannot\nsee</q> <small class="wrong">not read</small>') == 1
    assert section.count('<dd>nothing <small class="wrong">not read</small>') == 2


def test_how_answers_are_mixed_up_is_counted(pictured: Path):
    table = rows(sections(pictured)["runs-task-easy-vqa"], caption="easy-vqa: how often each answer")
    labels = table.pop("head")
    assert [*table] == labels[:13]
    assert labels[:3] == ["black", "blue", "brown"]
    assert labels[13:] == ["no answer read"]
    lines = (pictured / "answers" / "easy-vqa-after-generation.jsonl").read_text().splitlines()
    answers = [json.loads(line) for line in lines]
    for row, column in (("yes", "yes"), ("yes", "no"), ("circle", "triangle")):
        count = sum((one["expected"], one["predicted"]) == (row, column) for one in answers)
        assert table[row][labels.index(column)] == str(count)
    assert sum(int(cell) for row in table.values() for cell in row) == 240


def test_a_task_of_many_answers_has_no_table_of_mixed_up_ones(pictured: Path):
    path = pictured / "answers" / "easy-vqa-after-generation.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**line, "expected": f"{line['expected']} {n % 4}", "is_correct": False} for n, line in enumerate(lines)]
    path.write_text("".join(json.dumps({**line, "credit": 0.0}) + "\n" for line in changed))
    assert "mixed up" not in sections(pictured)["runs-task-easy-vqa"]


def test_the_abilities_are_drawn_around_a_circle(pictured: Path):
    section = sections(pictured)["runs-task-mmbench"]
    assert '<figure id="runs-task-mmbench-kinds-mmbench">' in section
    assert "finegrained" in section[section.index("<svg") :]


def test_runs_lie_over_each_other_with_a_table_of_the_same_numbers(pictured: Path, tmp_path: Path):
    write_pictured_run(tmp_path / "other", share=0.6, seed=2, method="lora")
    section = sections(pictured, tmp_path / "other")["runs-task-mmbench"]
    table = rows(section, caption="mmbench: accuracy by kind of question, %")
    assert table["head"] == ["pictures", "other"]
    assert len(table) == 7
    assert section.count("<details>\n  <summary>") == 2
    assert section.count("<img ") == 12


def test_a_comparison_draws_its_arms_over_each_other(tmp_path: Path):
    record = comparison_record(seeds=(1, 2), tasks=("mmbench",))
    record.save(tmp_path / "comparison.json")
    seen = {}
    for arm in record.arms[:2]:
        for seed, place in arm.runs.items():
            seen[arm.arm, seed] = write_pictured_run(tmp_path / place, seed=int(seed), method=arm.method)
    section = sections(tmp_path)["c1-kinds"]
    assert '<figure id="c1-kinds-mmbench">' in section
    table = rows(section, caption="mmbench: accuracy by kind of question, %; lowest and highest seed below")
    assert table["head"] == ["lora", "moslora"]
    each = [seen["lora", seed].evaluations[4].by_kind["logic_reasoning"].accuracy for seed in ("1", "2")]
    low, high = (f"{100 * value:.1f}" for value in (min(each), max(each)))
    assert table["logic reasoning"][0] == f"{100 * sum(each) / 2:.1f}<small class=range>{low} to {high}</small>"


def test_what_a_question_says_is_text_in_the_page(pictured: Path):
    path = pictured / "answers" / "easy-vqa-examples.json"
    kept = json.loads(path.read_text())
    kept["examples"][0] |= {"question": "<script>alert(1)</script>", "expected": '" onerror="x'}
    path.write_text(json.dumps(kept))
    section = sections(pictured)["runs-task-easy-vqa"]
    assert "<script>alert" not in section
    assert "&lt;script&gt;" in section
    assert '" onerror="x' not in section


def test_a_run_without_examples_or_answers_still_has_its_numbers(pictured: Path):
    for path in (pictured / "answers").iterdir():
        path.unlink()
    section = sections(pictured)["runs-task-easy-vqa"]
    assert "<img" not in section
    assert "always the commonest answer" in section


def test_damaged_examples_are_named(pictured: Path):
    (pictured / "answers" / "mmbench-examples.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"cannot read the examples .*mmbench-examples.json"):
        make_report([pictured])


def test_each_part_of_the_model_is_shown_with_what_trains_in_it(pictured: Path):
    section = sections(pictured)["runs-parts"]
    table = rows(section, caption="Each part of the model")
    names = ("adapted", "rank", "alpha", "dropout", "mixer", "parameters", "of these mixers", "quantised", "gradient")
    assert table["head"] == [*names]
    assert table["language"] == [
        *("14 of 16<small>layers</small>", "8", "16", "0.05", "orthogonal", "120k", "900", "14 of 16", "everywhere")
    ]
    assert table["vision"][1:] == ["4, 8", "8, 16", "–", "–", "60k", "0", "–", "none at 8"]
    assert table["projector"] == ["whole", "–", "–", "–", "–", "2.11k", "0", "–", "–"]
    assert "vision: no gradient reached encoder.layers.0.self_attn.q_proj, " in section
    assert "encoder.layers.5.self_attn.q_proj and 2 more, which stay as they started." in section


def test_a_comparison_says_what_is_left_without_the_picture(tmp_path: Path):
    record = comparison_record(tasks=("mmbench",))
    record.arms[0].controls = {"picture blanked": {"mmbench": 0.314}}
    record.save(tmp_path / "comparison.json")
    table = rows(sections(tmp_path)["c1-controls"], caption="Accuracy in percent, and what is left of it")
    assert table["head"] == ["mmbench", "mmbench, picture blanked"]
    assert table["lora"] == ["60.0<small class=range>57.5 to 62.5</small>", "31.4"]
    assert table["moslora"][1] == "–"


def test_a_comparison_of_texts_has_neither_controls_nor_circles(tmp_path: Path):
    comparison_record().save(tmp_path / "comparison.json")
    assert not {"c1-controls", "c1-kinds"} & sections(tmp_path).keys()
