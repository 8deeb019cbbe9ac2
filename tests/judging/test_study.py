import sqlite3
import stat
from collections import Counter
from concurrent.futures import wait
from pathlib import Path

import pytest

from moslora.errors import ConfigError, DataError, InUseError, OutputError
from moslora.judging.added import added_notes
from moslora.judging.founding import Question, Setup, found_study, parse_question
from moslora.judging.judgements import read_answer, read_photos, read_study
from moslora.judging.material import read_material
from moslora.judging.schema import FILE
from moslora.judging.study import RefusedError, Study
from moslora.judging.writing import Writer, connect
from tests.judging.conftest import METHODS, draw


@pytest.fixture
def study(study_folder: Path):
    opened = Study(study_folder)
    yield opened
    opened.close()


def answered(study: Study, judge: int, *choices: str, pages: int = 1) -> None:
    one = study.judges[judge]
    for _ in range(pages):
        page = study.page(one)
        assert page is not None
        study.answer(one, page.token, choices=choices, seconds=1.5).result()  # pyright: ignore[reportArgumentType]


def test_what_was_answered_is_read_back_as_it_was_meant(study: Study):
    answered(study, 0, "left", "tie", pages=12)
    record = read_study(study.folder)
    assert record.methods == METHODS
    assert record.questions == ("subject similarity", "prompt consistency")
    assert (record.pairs_planned, record.judges_planned, record.judges) == (10, 3, ("ann", "ben", "cleo"))
    assert len(record.judgements) == 24
    first, second = record.judgements[:2]
    assert (first.judge, first.question, second.question) == ("ann", *record.questions)
    assert first.prompt.startswith("a red cup")
    for one in record.judgements:
        assert (one.first, one.second) == METHODS
        if one.question == "prompt consistency":
            assert one.outcome == "tie"
        elif one.check != "same":  # left was chosen
            assert one.outcome == ("first" if one.left == METHODS[0] else "second")
        assert one.seconds == 1.5
    assert Counter(one.check for one in record.judgements) == {None: 20, "same": 2, "swapped": 2}
    assert Counter(one.left for one in record.judgements if one.check is None) == {METHODS[0]: 10, METHODS[1]: 10}


def test_a_repeat_has_its_sides_swapped_so_left_twice_is_a_contradiction(study: Study):
    answered(study, 1, "left", "left", pages=12)
    both = {one.check: one for one in read_study(study.folder).judgements if one.question == "prompt consistency"}
    again = both["swapped"]
    (before,) = (
        one
        for one in read_study(study.folder).judgements
        if (one.pair, one.check, one.question) == (again.pair, None, again.question)
    )
    assert {before.outcome, again.outcome} == {"first", "second"}


def test_nothing_is_answered_twice_out_of_order_or_for_another(study: Study):
    ann, ben = study.judges[:2]
    page, other = study.page(ann), study.page(ben)
    assert page
    assert other
    study.answer(ann, page.token, choices=["left", "tie"], seconds=1).result()
    study.answer(ann, page.token, choices=["left", "tie"], seconds=9).result()  # sent again: kept once
    with pytest.raises(RefusedError, match="already has a different answer"):
        study.answer(ann, page.token, choices=["right", "tie"], seconds=1).result()
    with pytest.raises(RefusedError, match="belongs to another link"):
        study.answer(ann, other.token, choices=["left", "tie"], seconds=1).result()
    with sqlite3.connect(study.folder / FILE) as database:
        (later,) = database.execute("SELECT token FROM showing WHERE judge = ? AND place = 5", (ann.id,)).fetchone()
    database.close()
    with pytest.raises(RefusedError, match="not the next one"):
        study.answer(ann, later, choices=["left", "tie"], seconds=1).result()
    assert [(one.outcome == "tie", one.seconds) for one in read_study(study.folder).judgements] == [
        (False, 1),
        (True, 1),
    ]


def test_the_file_itself_takes_no_second_judgement(study: Study):
    answered(study, 0, "left", "tie")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        study._writer.submit(
            lambda database: database.execute(
                "INSERT INTO judgement SELECT showing, question, 'right', 1, answered, NULL FROM judgement"
            )
        ).result()


def test_undoing_goes_back_page_by_page_and_keeps_what_was_undone(study: Study):
    ann = study.judges[0]
    first = study.page(ann)
    answered(study, 0, "left", "right")
    second = study.page(ann)
    answered(study, 0, "tie", "tie")
    assert first
    assert second
    third = study.page(ann)
    assert third
    study.undo(ann, third.token).result()
    back = study.page(ann)
    assert back
    assert (back.token, back.chosen) == (second.token, {0: "tie", 1: "tie"})
    with pytest.raises(RefusedError, match="not the pair you are on"):
        study.undo(ann, third.token).result()  # a second click
    study.undo(ann, back.token).result()
    with pytest.raises(RefusedError, match="nothing to undo"):
        study.undo(ann, first.token).result()
    answered(study, 0, "right", "right")
    assert len(read_study(study.folder).judgements) == 2
    with sqlite3.connect(study.folder / FILE) as database:
        assert database.execute("SELECT COUNT(*) FROM judgement").fetchone() == (6,)
    database.close()


def test_the_last_page_can_be_undone_from_the_end(study: Study):
    answered(study, 2, "tie", "tie", pages=12)
    cleo = study.judges[2]
    assert study.page(cleo) is None
    study.undo(cleo, None).result()
    page = study.page(cleo)
    assert page
    assert page.place == page.total == 12


def test_closing_takes_no_more_and_reopening_is_remembered(study: Study):
    study.stop().result()
    study.stop().result()
    assert read_study(study.folder).is_closed
    page = study.page(study.judges[0])
    assert page
    with pytest.raises(RefusedError, match="closed"):
        study.answer(study.judges[0], page.token, choices=["left", "tie"], seconds=1).result()
    with pytest.raises(RefusedError, match="closed"):
        study.undo(study.judges[0], page.token).result()
    study.reopen().result()
    answered(study, 0, "left", "tie")
    record = read_study(study.folder)
    assert (record.is_closed, record.reopened) == (False, 1)


def test_a_further_judge_sees_the_same_pairs_and_changes_no_plan(study: Study):
    study.add_judge("dan").result()
    answered(study, 3, "left", "tie", pages=12)
    record = read_study(study.folder)
    assert (record.judges[-1], record.judges_planned) == ("dan", 3)
    assert len({one.pair for one in record.judgements if one.check is None}) == 10
    assert (record.added, record.added_after_closing) == (("dan",), ())
    assert added_notes(record) == [
        "Judges: 3 judges planned and 1 added after the start. The plan of 60 judgements became one of 80."
    ]
    study.stop().result()
    study.reopen().result()
    study.add_judge("eve").result()
    record = read_study(study.folder)
    assert (record.added, record.added_after_closing) == (("dan", "eve"), ("eve",))
    assert "2 added after the start; 1 of them after judging had been closed once, when" in added_notes(record)[0]
    for name, message in [
        ("dan", "already"),
        ("", "is not a name"),
        ("x" * 61, "is not a name"),
        ("a\nb", "is not a name"),
    ]:
        with pytest.raises(ConfigError, match=message):
            study.add_judge(name).result()


def test_names_sent_are_random_for_every_judge_and_page(study: Study):
    with sqlite3.connect(study.folder / FILE) as database:
        rows = database.execute("SELECT token, left_token, right_token FROM showing").fetchall()
    database.close()
    tokens = [token for row in rows for token in row] + [judge.token for judge in study.judges] + [study.admin_token]
    assert len(set(tokens)) == len(tokens) == 3 * 36 + 4
    assert min(map(len, tokens)) >= 32


def test_a_study_has_one_server_at_a_time(study: Study):
    with pytest.raises(InUseError, match="being served already"):
        Study(study.folder)


def test_only_the_owner_reads_the_links(study_folder: Path):
    assert stat.S_IMODE((study_folder / FILE).stat().st_mode) == 0o600


def test_a_commit_is_on_disk_before_anybody_is_told(study_folder: Path):
    database = connect(study_folder / FILE)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    database.close()


def test_what_fails_undoes_itself_alone(tmp_path: Path):
    writer = Writer(tmp_path / "x.sqlite3")
    writer.submit(lambda database: database.execute("CREATE TABLE t (n INTEGER UNIQUE)")).result()

    def insert(number: int):
        return writer.submit(lambda database: database.execute("INSERT INTO t VALUES (?)", (number,)).rowcount)

    futures = [insert(number % 40) for number in range(80)]
    wait(futures)
    assert sum(future.exception() is None for future in futures) == 40
    writer.close()
    with sqlite3.connect(tmp_path / "x.sqlite3") as database:
        assert database.execute("SELECT COUNT(*) FROM t").fetchone() == (40,)
    database.close()


def test_when_the_commit_fails_nobody_is_told_that_it_was_kept(tmp_path: Path):
    writer = Writer(tmp_path / "x.sqlite3")
    setup = "CREATE TABLE a (n INTEGER PRIMARY KEY)", "CREATE TABLE b (n REFERENCES a DEFERRABLE INITIALLY DEFERRED)"
    for statement in setup:
        writer.submit(lambda database, statement=statement: database.execute(statement)).result()
    kept = writer.submit(lambda database: database.execute("INSERT INTO b VALUES (7)"))  # fails only at the commit
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        kept.result()
    writer.submit(lambda database: database.execute("INSERT INTO a VALUES (7)")).result()
    writer.close()


def test_answers_and_photos_are_read_back_as_judges_saw_them(study_folder: Path):
    pair = "0000-seed3-a-red-cup-0"
    assert read_answer(study_folder, pair, method=METHODS[0]).startswith(b"\x89PNG")  # pyright: ignore
    assert len(read_photos(study_folder, None)) == 1
    with pytest.raises(DataError, match="no answer of 'eagle'"):
        read_answer(study_folder, pair, method="eagle")


def test_methods_that_drew_the_same_are_not_judged(tmp_path: Path):
    folders = [str(draw(tmp_path / name, pairs=3)) for name in METHODS]
    with pytest.raises(DataError, match="zebra-lora and quokka-mixer gave the very same answer to each of 3 prompts"):
        found_study(tmp_path / "study", read_material(folders))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (Setup(judges=()), "needs a judge"),
        (Setup(judges=("a", "a")), "already a judge 'a'"),
        (Setup(questions=(Question("x", "X?"), Question("x", "Y?"))), "already a question 'x'"),
    ],
)
def test_a_study_that_makes_no_sense_is_not_begun(tmp_path: Path, drawn: list[str], setup: Setup, message: str):
    with pytest.raises(ConfigError, match=message):
        found_study(tmp_path / "study", read_material(drawn), setup=setup)
    assert not (tmp_path / "study").exists()


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, drawn: list[str]):
    with pytest.raises(OutputError, match="not an empty folder"):
        found_study(tmp_path, read_material(drawn))
    with pytest.raises(DataError, match=r"holds no study .*; give the folder that `moslora judge serve` wrote"):
        read_study(tmp_path)


def test_a_question_has_a_name_and_words():
    assert parse_question("style: Which is closer?") == Question("style", "Which is closer?")
    assert parse_question("Which is better?") == Question("Which is better?", "Which is better?")
    with pytest.raises(ConfigError, match="has no words"):
        parse_question(" ")
