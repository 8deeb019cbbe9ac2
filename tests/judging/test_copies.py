"""The one file of a study holds what was answered: while it is served, after a kill, and once somebody reads it."""

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from moslora.judging.judgements import read_study
from moslora.judging.schema import FILE
from moslora.judging.study import Study


def answer_a_page(study: Study) -> None:
    ann = study.judges[0]
    page = study.page(ann)
    assert page
    study.answer(ann, page.token, choices=["left", "tie"], seconds=1).result()


def judgements_in(file: Path) -> int:
    """How many judgements a file holds without the log that may lie beside it."""
    database = sqlite3.connect(f"{file.as_uri()}?immutable=1", uri=True)
    try:
        return database.execute("SELECT COUNT(*) FROM judgement").fetchone()[0]
    finally:
        database.close()


def wait_for(file: Path, judgements: int) -> int:
    """How many a file holds once it holds so many, or after five seconds."""
    end = time.monotonic() + 5
    while (found := judgements_in(file)) != judgements and time.monotonic() < end:
        time.sleep(0.02)
    return found


def test_a_copy_of_the_one_file_has_every_answer_while_the_study_is_served(study_folder: Path):
    study = Study(study_folder)
    try:
        for page in range(1, 4):
            answer_a_page(study)
            assert wait_for(study_folder / FILE, 2 * page) == 2 * page
    finally:
        study.close()


def test_whoever_reads_meanwhile_holds_nothing_back_for_long(study_folder: Path):
    study = Study(study_folder)
    reader = sqlite3.connect(study_folder / FILE)
    try:
        answer_a_page(study)
        reading = reader.execute("SELECT * FROM showing")
        reading.fetchone()  # and holds what it sees in place
        answer_a_page(study)
        assert judgements_in(study_folder / FILE) < 4
        reading.close()
        assert wait_for(study_folder / FILE, 4) == 4
    finally:
        reader.close()
        study.close()


@pytest.mark.parametrize("opens", [read_study, lambda folder: Study(folder).close()], ids=["results", "serve"])
def test_what_a_killed_server_left_in_the_log_is_moved_into_the_file(study_folder: Path, tmp_path: Path, opens):
    database = sqlite3.connect(study_folder / FILE, isolation_level=None)
    database.execute("PRAGMA wal_autocheckpoint=0")
    database.execute("INSERT INTO judgement VALUES (1, 0, 'left', 1, '2026-01-01T00:00:00+00:00', NULL)")
    shutil.copytree(study_folder, tmp_path / "killed")
    database.close()
    assert judgements_in(tmp_path / "killed" / FILE) == 0
    opens(tmp_path / "killed")
    assert judgements_in(tmp_path / "killed" / FILE) == 1
