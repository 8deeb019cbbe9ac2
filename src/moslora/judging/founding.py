"""Beginning a study: answers made alike, pages drawn for every judge, all in one new file."""

import json
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moslora.errors import ConfigError, DataError
from moslora.files import new_folder
from moslora.judging.material import PICTURE, Material, bodies, photo_bodies, photos_digest
from moslora.judging.pairing import default_checks, pairs_of, showings
from moslora.judging.schema import FILE, FORMAT, SCHEMA
from moslora.judging.writing import connect

TOKEN_BYTES = 24  # 192 bits
MOST_JUDGES = 500
LONGEST_NAME = 60


@dataclass(frozen=True)
class Question:
    """What judges are asked about each pair: the name in the results, and the words on the page."""

    name: str
    text: str


SUBJECT = Question("subject similarity", "Which picture is more like the subject in the photos?")
PROMPT = Question("prompt consistency", "Which picture fits the description better?")
TEXT = Question("answer quality", "Which answer is better?")


@dataclass(frozen=True)
class Setup:
    """How a study is run: what is asked, by whom, and how many checks of each kind a judge meets.

    Without `questions` those that the material allows; without `same` and `swapped` one check of each in 16 pairs.
    """

    questions: tuple[Question, ...] = ()
    judges: tuple[str, ...] = ("judge 1", "judge 2", "judge 3")
    same: int | None = None
    swapped: int | None = None


def default_questions(material: Material) -> tuple[Question, ...]:
    """Subject similarity where there are photos, prompt consistency where there are prompts; one question of texts."""
    if material.kind != PICTURE:
        return (TEXT,)
    asked = [SUBJECT] if material.photos else []
    if all(item.prompt for item in material.items):
        asked.append(PROMPT)
    if not asked:
        raise ConfigError("there are neither photos nor prompts to judge by; give --photos, --prompts or --question")
    return tuple(asked)


def not_asked(material: Material) -> list[str]:
    """Why a default question about pictures is not asked, a line each."""
    if material.kind != PICTURE:
        return []
    bare = [item.name for item in material.items if not item.prompt]
    count = f"{len(bare)} of {len(material.items)} names {'has' if len(bare) == 1 else 'have'} no prompt"
    lines = [] if material.photos else [f"{SUBJECT.name} is not asked: there are no photos (--photos)"]
    return lines + ([f"{PROMPT.name} is not asked: {count}, first '{bare[0]}' (--prompts)"] if bare else [])


def parse_question(text: str) -> Question:
    """A question from `NAME: WORDS`, or from words that are its name too. Raises ConfigError for an empty one."""
    name, separator, words = (part.strip() for part in text.partition(":"))
    question = Question(name, words) if separator and words else Question(text.strip(), text.strip())
    if not question.name:
        raise ConfigError(f"the question '{text}' has no words; write for example 'style: Which is closer in style?'")
    return question


def found_study(folder: str | Path, material: Material, *, setup: Setup | None = None) -> None:
    """Write a new study into a folder, whole or not at all.

    Raises ConfigError for names or questions that are empty or given twice, DataError for answers that are all alike,
    and OutputError for a folder that is in use.
    """
    setup = setup or Setup()
    questions = setup.questions or default_questions(material)
    _check_distinct("question", [question.name for question in questions])
    _check_distinct("judge", setup.judges)
    pairs = pairs_of(len(material.items), len(material.methods))
    checks = {name: default_checks(pairs) if given is None else given for name, given in _checks(setup).items()}
    told: dict[str, Any] = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "kind": material.kind,
        "methods": material.methods,
        "questions": [question.name for question in questions],
        "question_texts": [question.text for question in questions],
        "pairs_planned": pairs,
        "judges_planned": len(setup.judges),
        **checks,
        "digest": material.digest,
        "photos_digest": photos_digest(material.photos),
        "seed": secrets.token_hex(16),
        "admin_token": secrets.token_urlsafe(TOKEN_BYTES),
        "cookie": secrets.token_hex(4),
    }
    with new_folder(folder, is_private=True) as staged:
        database = connect(staged / FILE)
        (staged / FILE).chmod(0o600)  # it holds everybody's links
        database.executescript(SCHEMA)
        database.execute("BEGIN")
        database.executemany("INSERT INTO study VALUES (?, ?)", [(key, json.dumps(told[key])) for key in told])
        _add_material(database, material)
        for name in setup.judges:
            add_judge(database, name)
        database.execute("COMMIT")
        database.close()


def add_judge(database: sqlite3.Connection, name: str) -> str:
    """A new judge with a link and pages of their own, inside a transaction; the token of the link.

    Raises ConfigError for a name that is empty, long or taken.
    """
    taken = [one for (one,) in database.execute("SELECT name FROM judge")]
    _check_distinct("judge", [*taken, name])
    if len(taken) >= MOST_JUDGES:
        raise ConfigError(f"{len(taken)} judges are the most that a study takes; start another one")
    told = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM study")}
    rows = database.execute("SELECT id, subject FROM item ORDER BY id").fetchall()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    judge = database.execute("INSERT INTO judge (name, token) VALUES (?, ?)", (name, token)).lastrowid
    drawn = showings(
        [subject for _, subject in rows],
        len(told["methods"]),
        judge=len(taken),
        seed=told["seed"],
        same=told["same"],
        swapped=told["swapped"],
    )
    database.executemany(
        'INSERT INTO showing (judge, place, item, first, second, "left", "right", "check", token, left_token,'
        " right_token) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (judge, place, rows[one.item][0], one.first, one.second, one.left, one.right, one.check, *_tokens(3))
            for place, one in enumerate(drawn)
        ],
    )
    return token


def add_later(database: sqlite3.Connection, name: str) -> str:
    """A further judge as by `add_judge`; the study notes how often it had been closed before."""
    token = add_judge(database, name)
    row = database.execute("SELECT value FROM study WHERE key = 'added'").fetchone()
    (closed,) = database.execute("SELECT COUNT(*) FROM event WHERE what = 'closed'").fetchone()
    noted = {**(json.loads(row[0]) if row else {}), name: closed}
    database.execute("INSERT OR REPLACE INTO study VALUES ('added', ?)", (json.dumps(noted),))
    return token


def _add_material(database: sqlite3.Connection, material: Material) -> None:
    alike = set(range(1, len(material.methods)))
    for number, item in enumerate(material.items):
        shown = bodies(item, material.kind)
        alike -= {method for method in alike if shown[method] != shown[0]}
        database.execute("INSERT INTO item VALUES (?, ?, ?, ?)", (number, item.name, item.subject, item.prompt))
        rows = [(number, method, body) for method, body in enumerate(shown)]
        database.executemany("INSERT INTO answer VALUES (?, ?, ?)", rows)
    if alike:
        raise DataError(
            f"{material.methods[0]} and {material.methods[min(alike)]} gave the very same answer to each of"
            f" {len(material.items)} prompts, so there is nothing to judge: check that the adapter was used"
        )
    photos = [(subject, *_tokens(1), body) for subject, body in photo_bodies(material)]
    database.executemany("INSERT INTO photo (subject, token, body) VALUES (?, ?, ?)", photos)


def _checks(setup: Setup) -> dict[str, int | None]:
    return {"same": setup.same, "swapped": setup.swapped}


def _tokens(number: int) -> list[str]:
    return [secrets.token_urlsafe(TOKEN_BYTES) for _ in range(number)]


def _check_distinct(what: str, names: Sequence[str]) -> None:
    if not names:
        raise ConfigError(f"a study needs a {what}; give at least one")
    for place, name in enumerate(names):
        if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
            raise ConfigError(f"'{name[:LONGEST_NAME]}' is not a name for a {what}; give 1 to {LONGEST_NAME} letters")
        if name in names[:place]:
            raise ConfigError(f"there is already a {what} '{name}'; give another name")
