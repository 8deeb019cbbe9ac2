"""The tables of a study's file.

Methods and questions are numbers here, places in the lists of `study`. A judge's showings are all drawn when the judge
joins, each with random names for what is sent. Judgements are only ever added; `withdrawn` marks what was undone.
"""

FILE = "study.sqlite3"
FORMAT = 1

SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, subject TEXT, prompt TEXT NOT NULL);
CREATE TABLE answer (
    item INTEGER NOT NULL REFERENCES item, method INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (item, method)
);
CREATE TABLE photo (id INTEGER PRIMARY KEY, subject TEXT, token TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE judge (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, token TEXT NOT NULL UNIQUE);
CREATE TABLE showing (
    id INTEGER PRIMARY KEY, judge INTEGER NOT NULL REFERENCES judge, place INTEGER NOT NULL,
    item INTEGER NOT NULL REFERENCES item, first INTEGER NOT NULL, second INTEGER NOT NULL,
    "left" INTEGER NOT NULL, "right" INTEGER NOT NULL, "check" TEXT CHECK ("check" IN ('same', 'swapped')),
    token TEXT NOT NULL UNIQUE, left_token TEXT NOT NULL UNIQUE, right_token TEXT NOT NULL UNIQUE,
    UNIQUE (judge, place)
);
CREATE TABLE judgement (
    showing INTEGER NOT NULL REFERENCES showing, question INTEGER NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('left', 'tie', 'right')),
    seconds REAL NOT NULL CHECK (seconds >= 0), answered TEXT NOT NULL, withdrawn TEXT
);
CREATE UNIQUE INDEX one_judgement ON judgement (showing, question) WHERE withdrawn IS NULL;
CREATE INDEX judgement_by_showing ON judgement (showing);
CREATE TABLE event (
    id INTEGER PRIMARY KEY, what TEXT NOT NULL CHECK (what IN ('closed', 'reopened')), at TEXT NOT NULL
);
"""
