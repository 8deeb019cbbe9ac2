import base64
import csv
import io
import json

import pytest
from PIL import Image

from moslora.data.images import GREY, check_image, open_image
from moslora.data.vision_tasks import (
    VISION_TASKS,
    options_only,
    prediction_suffix,
    vision_task,
    with_blank_pictures,
    write_predictions,
    write_submission,
)
from moslora.data.vision_tasks.choice import choice_table, mmbench, seed
from moslora.data.vision_tasks.judged import mathvista, mm_vet
from moslora.data.vision_tasks.question import CHINESE_LETTER_SENTENCE, LETTER_SENTENCE, SHORT_SENTENCE
from moslora.data.vision_tasks.scienceqa import scienceqa
from moslora.data.vision_tasks.short import MME_SUBTASKS, easy_vqa, mme, textvqa
from moslora.errors import ConfigError, DataError, MissingDependencyError


def content(size=(4, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "PNG")
    return stream.getvalue()


PICTURE = base64.b64encode(content()).decode()


def table(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, delimiter="\t", restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def choice(index=1, **changes):
    row = {"index": index, "question": "What is it?", "hint": "", "A": "a dog", "B": "a cat", "C": "", "answer": "B"}
    return row | {"category": "identity", "l2-category": "logic", "image": PICTURE, "split": "dev"} | changes


def refusal(read, path, **options):
    with pytest.raises(DataError) as caught:
        read(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_choice_is_asked_as_llava_and_xtuner_ask_it(tmp_path):
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(hint="Look left.", C="an owl")]))
    assert found.prompt == f"Look left.\nWhat is it?\nA. a dog\nB. a cat\nC. an owl\n{LETTER_SENTENCE}"
    assert found.content == f"<image>\n{found.prompt}"
    assert LETTER_SENTENCE == "Answer with the option's letter from the given choices directly."
    assert found.options == {"A": "a dog", "B": "a cat", "C": "an owl"}
    assert (found.answers, found.unit, found.kind) == (["B"], "1", "identity")
    assert found.images == [content()]
    assert check_image(found.images[0], place="x").width == 4


@pytest.mark.parametrize("change", [{"question": "这是什么?"}, {"hint": "看图。"}, {"B": "一只猫"}])
def test_a_prompt_with_chinese_in_any_part_asks_for_the_letter_in_chinese(tmp_path, change):
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(**change)]))
    assert found.prompt.endswith(f"\n{CHINESE_LETTER_SENTENCE}")
    assert CHINESE_LETTER_SENTENCE == "请直接回答选项字母。"


@pytest.mark.parametrize("empty", ["", "nan", "NaN"])
def test_cells_without_a_value_are_neither_hint_nor_option(tmp_path, empty):
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(hint=empty, C=empty)]))
    assert found.prompt == f"What is it?\nA. a dog\nB. a cat\n{LETTER_SENTENCE}"
    assert list(found.options) == ["A", "B"]


def test_an_option_may_be_the_word_none(tmp_path):
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(C="None", answer="C")]))
    assert found.options["C"] == "None"


def test_the_options_can_be_asked_alone(tmp_path):
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(hint="Look left.")]))
    alone = options_only(found)
    assert alone.content == f"A. a dog\nB. a cat\n{LETTER_SENTENCE}"
    assert (alone.images, alone.answers, alone.unit) == ([], ["B"], "1")


def test_blank_pictures_have_the_sizes_of_the_questions_own(tmp_path):
    both = str([base64.b64encode(content(size)).decode() for size in ((4, 3), (2, 5))])
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(image=both)]))
    shown = with_blank_pictures(found)
    pictures = [open_image(image, place="x") for image in shown.images]
    assert [picture.getcolors() for picture in pictures] == [[(12, GREY)], [(10, GREY)]]
    assert [picture.size for picture in pictures] == [(4, 3), (2, 5)]
    assert shown.content == found.content


def test_a_short_picture_is_the_index_of_the_row_that_has_it(tmp_path):
    rows = [choice(index=1_000_001, image="1", A="a cat", B="a dog", answer="A"), choice(index=1)]
    first, second = mmbench(table(tmp_path / "a.tsv", rows))
    assert first.images == second.images == [content()]
    assert first.images[0] is second.images[0]
    message = refusal(choice_table, table(tmp_path / "b.tsv", [choice(image="7")]))
    assert message.endswith("index 1: the picture is that of index '7', which has none; give the whole table")


def test_pictures_may_be_several_or_lie_on_disk(tmp_path):
    both = str([PICTURE, base64.b64encode(content((2, 2))).decode()])
    (found,) = choice_table(table(tmp_path / "a.tsv", [choice(image=both)]))
    assert found.images == [content(), content((2, 2))]
    assert found.content.startswith("<image>\n<image>\nWhat")
    path = table(tmp_path / "b.tsv", [choice(image="", image_path="x/1.jpg")])
    assert choice_table(path, image_folder=tmp_path)[0].images == [str(tmp_path / "x/1.jpg")]
    assert "no picture in 'image' or 'image_path'" in refusal(
        choice_table, table(tmp_path / "c.tsv", [choice(image="")])
    )
    assert "is not base64" in refusal(choice_table, table(tmp_path / "d.tsv", [choice(image="?" * 80)]))


def test_the_circular_rows_of_mmbench_are_one_unit(tmp_path):
    rows = [
        choice(index=5),
        choice(index=1_000_005, A="a cat", B="a dog", answer="A"),
        choice(index=6),
        choice(1_000_006),
    ]
    path = table(tmp_path / "a.tsv", rows)
    assert [(q.index, q.unit) for q in mmbench(path)] == [("5", "5"), ("1000005", "5"), ("6", "6"), ("1000006", "6")]
    assert {q.kind for q in mmbench(path)} == {"logic"}
    assert [q.index for q in mmbench(path, limit=1)] == ["5", "1000005"]


def test_a_table_of_mmbench_without_passes_gets_one_for_each_option(tmp_path):
    rows = [choice(index=5, C="an owl"), choice(index=6)]
    found = mmbench(table(tmp_path / "a.tsv", rows))
    assert [question.index for question in found] == ["5", "1000005", "2000005", "6", "1000006"]
    assert [question.unit for question in found] == ["5", "5", "5", "6", "6"]
    assert [next(iter(q.options.values())) for q in found[:3]] == ["a dog", "a cat", "an owl"]
    assert [q.options[q.answers[0]] for q in found] == ["a cat"] * 5
    assert "\nA. a cat\nB. an owl\nC. a dog\n" in found[1].prompt
    assert found[1].row["A"] == "a cat"
    assert len(mmbench(tmp_path / "a.tsv", limit=1)) == 3


def test_questions_without_a_public_answer_are_read_for_a_submission(tmp_path):
    rows = [{k: v for k, v in choice(index=n, C="an owl").items() if k != "answer"} for n in (1, 1_000_001)]
    found = mmbench(table(tmp_path / "a.tsv", rows))
    assert [question.answers for question in found] == [[], []]
    write_submission(tmp_path / "out.tsv", found, texts=["B", "A. =1+1"])
    with (tmp_path / "out.tsv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.reader(stream, delimiter="\t"))
    assert lines[0] == ["index", "question", "A", "B", "C", "prediction"]
    assert lines[1] == ["1", "What is it?", "a dog", "a cat", "an owl", "B"]
    assert lines[2][0] == "1000001"
    assert lines[2][-1] == "A. =1+1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "index 1: the answer is 'E', allowed: A, B; correct the table"),
        ({"B": ""}, "index 1: 1 options, expected at least two"),
        ({"index": "x1"}, "the index 'x1' is not a number"),
    ],
)
def test_a_bad_row_of_a_choice_is_named(tmp_path, change, message):
    assert message in refusal(mmbench, table(tmp_path / "a.tsv", [choice(**change)]))


def test_a_table_of_another_task_is_refused_by_its_columns(tmp_path):
    path = table(tmp_path / "a.tsv", [{"index": 1, "question": "?"}])
    assert "no column 'A' (it has: index, question); give the task's own table" in refusal(mmbench, path)


def test_seeds_own_json_gives_the_questions_about_pictures(tmp_path):
    row = {"question_id": "7", "question_type_id": 2, "question": "Where?", "data_id": "1.jpg", "answer": "C"}
    row |= {f"choice_{letter}": f"place {letter}" for letter in "abcd"}
    rows = [row | {"data_type": "image"}, row | {"data_type": "video", "question_id": "8"}]
    path = tmp_path / "SEED-Bench.json"
    path.write_text(json.dumps({"questions": rows, "question_type": {"Instance Location": 2}}))
    (found,) = seed(path, image_folder=tmp_path)
    assert found.images == [str(tmp_path / "1.jpg")]
    assert found.prompt.startswith("Where?\nA. place a\nB. place b\n")
    assert (found.index, found.answers, found.kind) == ("7", ["C"], "Instance Location")
    path.write_text("[1]")
    assert "no 'questions' and 'question_type' in it" in refusal(seed, path)
    assert seed(table(tmp_path / "a.tsv", [choice()]))[0].answers == ["B"]


PROBLEM = {"question": "Which is  taller?", "choices": ["the tree", "the bush"], "answer": 0, "hint": "Look."}


def scienceqa_folder(tmp_path, problems, splits=None):
    (tmp_path / "problems.json").write_text(json.dumps(problems))
    (tmp_path / "pid_splits.json").write_text(json.dumps(splits or {"test": list(problems)}))
    return tmp_path


def test_scienceqa_asks_with_context_question_and_options(tmp_path):
    problems = {"1": PROBLEM | {"image": "image.png", "subject": "natural science"}, "2": PROBLEM | {"image": None}}
    (tmp_path / "test" / "1").mkdir(parents=True)
    (tmp_path / "test" / "1" / "image.png").write_bytes(content())
    (found,) = scienceqa(scienceqa_folder(tmp_path, problems))
    options = "Options: (A) the tree (B) the bush"
    assert found.prompt == f"Context: Look.\nQuestion: Which is taller?\n{options}\n{LETTER_SENTENCE}"
    assert options_only(found).content == f"{options}\n{LETTER_SENTENCE}"
    assert (found.answers, found.kind) == (["A"], "natural science")
    assert found.images == [str(tmp_path / "test" / "1" / "image.png")]
    without = scienceqa(scienceqa_folder(tmp_path, {"1": problems["1"] | {"hint": ""}}))
    assert without[0].prompt.startswith("Context: N/A\n")


def test_scienceqas_splits_and_answers_are_checked(tmp_path):
    folder = scienceqa_folder(tmp_path, {"1": PROBLEM | {"image": "a.png", "answer": 2}}, {"test": ["1"], "val": ["9"]})
    assert "no split 'dev' (allowed: test, val)" in refusal(scienceqa, folder, split="dev")
    assert "no problem '9' of split 'val'" in refusal(scienceqa, folder, split="val")
    assert "problem 1: the answer is 2, allowed: 0 to 1" in refusal(scienceqa, folder)


def conversations(path, *values, image="1.png"):
    rows = [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]
    path.write_text(json.dumps({"id": "12", "image": image, "conversations": rows}) + "\n")
    return path


def test_scienceqa_in_llavas_form_keeps_its_own_prompt(tmp_path):
    asked = "Context: N/A\nQuestion: Which?\nOptions: (A) an (B)ox (B) a cat (B) sat\n<image>"
    (found,) = scienceqa(conversations(tmp_path / "a.jsonl", asked, "The answer is B."))
    assert found.prompt == asked.removesuffix("\n<image>")
    assert found.content == f"<image>\n{found.prompt}"
    assert found.options == {"A": "an (B)ox", "B": "a cat (B) sat"}
    assert found.answers == ["B"]
    assert found.images == [str(tmp_path / "1.png")]
    assert options_only(found).content == "Options: (A) an (B)ox (B) a cat (B) sat"


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("<image>\nQuestion: Which?", "The answer is B."),
        ("<image>\nOptions: (A) x (B) y", "B"),
        ("<image>\nOptions: (A) x (B) y", "The answer is C."),
        ("<image>\nOptions: (A) x (B) y", "The answer is A. The answer is B."),
    ],
)
def test_conversations_that_are_not_of_scienceqa_are_refused(tmp_path, asked, answer):
    assert "sample 1: expected a question with a picture and a line 'Options: (A) ... (B) ...'" in refusal(
        scienceqa, conversations(tmp_path / "a.jsonl", asked, answer)
    )


def test_the_real_scienceqa_is_read_whole(real_data):
    found = scienceqa(real_data("scienceqa/test.jsonl"))
    assert len(found) == 100
    assert all(question.answers[0] in question.options for question in found)
    assert all(2 <= len(question.options) <= 5 for question in found)
    assert check_image(found[0].images[0], place="x").width > 0


def textvqa_file(path, **changes):
    row = {"question_id": 3, "image_id": "ab", "question": "what is written?", "answers": ["stop"] * 9 + ["STOP"]}
    path.write_text(json.dumps({"data": [row | {"ocr_tokens": ["STOP", "ALL"]} | changes]}))
    return path


def test_textvqa_is_asked_without_the_words_that_another_reader_found_unless_asked(tmp_path):
    path = textvqa_file(tmp_path / "a.json")
    (found,) = textvqa(path, image_folder=tmp_path)
    assert found.prompt == f"what is written?\n{SHORT_SENTENCE}"
    assert SHORT_SENTENCE == "Answer the question using a single word or phrase."
    assert found.answers == ["stop"] * 9 + ["STOP"]
    assert found.images == [str(tmp_path / "ab.jpg")]
    (with_words,) = textvqa(path, image_folder=tmp_path, ocr=True)
    assert with_words.prompt == f"what is written?\nReference OCR token: STOP, ALL\n{SHORT_SENTENCE}"


def test_textvqas_table_holds_its_answers_as_a_list(tmp_path):
    row = {"index": 1, "question": "what?", "answer": str(["a"] * 10), "image": PICTURE}
    (found,) = textvqa(table(tmp_path / "a.tsv", [row]))
    assert found.answers == ["a"] * 10
    assert found.images == [content()]
    assert "no 'ocr_tokens' to show" in refusal(textvqa, tmp_path / "a.tsv", ocr=True)
    assert "is not a list" in refusal(textvqa, table(tmp_path / "b.tsv", [row | {"answer": "['a"}]))


def test_textvqa_needs_ten_answers_or_none(tmp_path):
    path = textvqa_file(tmp_path / "a.json", answers=["stop"])
    assert "question 3: 1 answers, expected 10, or none" in refusal(textvqa, path, image_folder=tmp_path)
    assert textvqa(textvqa_file(path, answers=[]), image_folder=tmp_path)[0].answers == []


def mme_rows(kind="OCR", image="a.jpg", **changes):
    question = {"question": "Is it a cat? Please answer yes or no.", "category": kind, "image_path": image}
    rows = [{"index": f"{kind}{image}{answer}", "answer": answer, "image": PICTURE} for answer in ("Yes", "No")]
    return [question | row | changes for row in rows]


def test_mmes_two_questions_of_a_picture_are_a_unit_and_subtasks_weigh_alike(tmp_path):
    rows = [*mme_rows(), *mme_rows("color", "a.jpg"), *mme_rows("color", "b.jpg")]
    found = mme(table(tmp_path / "a.tsv", rows))
    assert [question.unit for question in found[::2]] == ["OCR/a.jpg", "color/a.jpg", "color/b.jpg"]
    assert [question.weight for question in found] == [1, 1, 0.5, 0.5, 0.5, 0.5]
    assert [question.answers for question in found[:2]] == [["yes"], ["no"]]
    assert found[0].content == "<image>\nIs it a cat? Please answer yes or no."
    assert len(mme(tmp_path / "a.tsv", limit=2)) == 4
    assert len(MME_SUBTASKS) == 14


def test_half_a_pair_and_another_category_are_refused(tmp_path):
    assert "'OCR/a.jpg' has 1 questions, expected two" in refusal(mme, table(tmp_path / "a.tsv", mme_rows()[:1]))
    assert "category 'ocr' and answer 'yes', allowed: OCR, " in refusal(mme, table(tmp_path / "b.tsv", mme_rows("ocr")))
    assert "and answer 'maybe'" in refusal(mme, table(tmp_path / "c.tsv", mme_rows(answer="maybe")))


def test_easy_vqa_is_read_from_its_folder(tmp_path):
    rows = [["what color is the circle?", "red", 0], ["is there a circle?", "yes", 0], ["what shape?", "circle", 1]]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    found = easy_vqa(tmp_path)
    assert found[0].prompt == "what color is the circle?"
    assert [question.kind for question in found] == ["colour", "yes/no", "shape"]
    assert [question.group for question in found] == ["0", "0", "1"]
    assert found[2].images == [str(tmp_path / "images" / "1.png")]
    assert len(easy_vqa(tmp_path, limit=2)) == 2
    assert [question.index for question in easy_vqa(tmp_path, limit=2, is_open=True)] == ["1", "3"]
    with pytest.raises(DataError, match="question 1 has no options to ask alone"):
        options_only(found[0])
    (tmp_path / "questions.json").write_text('[["what?", "red"]]')
    assert "question 1 is ['what?', 'red'], expected [text, answer, image]" in refusal(easy_vqa, tmp_path)


MATHVISTA = {"index": 1, "question": "Hint: answer.\nQuestion: 1+1?", "answer": "2", "task": "math", "skills": "['x']"}
MATHVISTA |= {
    "question_type": "free_form",
    "answer_type": "integer",
    "choices": "",
    "answer_option": "",
    "image": PICTURE,
}


@pytest.mark.parametrize("suffix", [".tsv", ".json"])
def test_predictions_hold_all_columns_but_the_picture_and_empty_cells_stay_empty(tmp_path, suffix):
    found = mathvista(table(tmp_path / "a.tsv", [MATHVISTA, MATHVISTA | {"index": 2}]))
    assert found[0].prompt == "Hint: answer.\nQuestion: 1+1?"
    assert (found[0].answers, found[0].kind) == ([], "math")
    path = tmp_path / f"model_MathVista_MINI{suffix}"
    write_predictions(path, found, texts=["2", 'It is "2"\n\tof it'])
    if suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
    else:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
    assert list(rows[0]) == [name for name in MATHVISTA if name != "image"] + ["prediction"]
    assert [row["prediction"] for row in rows] == ["2", 'It is "2"\n\tof it']
    assert rows[0]["skills"] == "['x']"
    assert [row["index"] for row in rows] == ([1, 2] if suffix == ".json" else ["1", "2"])
    empty = None if suffix == ".json" else ""
    assert (rows[0]["choices"], rows[0]["answer_option"]) == (empty, empty)


def test_mm_vets_answers_go_to_the_judge(tmp_path):
    rows = [{"index": 1, "question": "What?", "answer": "a<AND>b", "category": "ocr,math", "image": PICTURE}]
    (found,) = mm_vet(table(tmp_path / "a.tsv", rows))
    assert (found.answers, found.kind, found.row["answer"]) == ([], "ocr,math", "a<AND>b")


def test_a_sheet_needs_openpyxl_and_other_endings_are_refused(tmp_path, monkeypatch):
    found = choice_table(table(tmp_path / "a.tsv", [choice()]))
    with pytest.raises(ConfigError, match=r"ends in \.xlsx, \.tsv, \.json, not '\.csv'"):
        write_predictions(tmp_path / "a.csv", found, texts=["B"])
    with pytest.raises(DataError, match="no predictions to write"):
        write_predictions(tmp_path / "b.tsv", [], texts=[])
    monkeypatch.setattr("moslora.data.vision_tasks.judged.find_spec", lambda name: None)
    assert prediction_suffix() == ".tsv"
    with pytest.raises(MissingDependencyError, match=r"\.xlsx needs openpyxl: pip install openpyxl, or write \.tsv"):
        write_predictions(tmp_path / "a.xlsx", found, texts=["B"])


def test_a_sheet_holds_texts_that_look_like_formulas_as_texts(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    found = choice_table(table(tmp_path / "a.tsv", [choice()]))
    write_submission(tmp_path / "a.xlsx", found, texts=["=1+1\x07"])
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx").active
    rows = [[cell.value for cell in row] for row in sheet.iter_rows()]
    assert rows[0] == ["index", "question", "A", "B", "C", "prediction"]
    assert rows[1] == [1, "What is it?", "a dog", "a cat", None, "=1+1"]
    assert sheet.cell(2, 6).data_type == "s"


def test_tasks_have_names_and_an_unknown_one_is_refused_with_the_nearest():
    assert vision_task("mmbench") is VISION_TASKS["mmbench"]
    with pytest.raises(ConfigError, match="unknown task 'mmbensh'; did you mean 'mmbench'"):
        vision_task("mmbensh")
