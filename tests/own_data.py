"""Small files such as people have, written by code: the same things told as instructions, a table, pairs and chats."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ANIMALS = ("cow", "dog", "hen", "cat", "owl", "bee", "pig", "frog", "duck", "lamb")
HABITS = (("says", "its own sound"), ("eats", "what it finds"), ("sleeps", "at its own hours"))
HABITS += (("lives", "where it is safe"), ("fears", "what hunts it"), ("likes", "a quiet place"))
FACTS = [
    (f"What does a {animal} {verb[:-1]}?", f"A {animal} {verb} {what}.") for verb, what in HABITS for animal in ANIMALS
]


@pytest.fixture(scope="session")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 60 facts as `facts.jsonl` (instructions), `facts.csv` and `pairs.parquet` (columns of other names).

    Also `chats.jsonl` (20 chats of three turns with a system prompt) and `stories` (text files).
    """
    folder = tmp_path_factory.mktemp("own")
    write_jsonl(folder / "facts.jsonl", [{"instruction": asked, "output": answer} for asked, answer in FACTS])
    with (folder / "facts.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("question", "answer"), *FACTS])
    pq.write_table(
        pa.table({"prompt": [f"{q}\n" for q, _ in FACTS], "reply": [a for _, a in FACTS]}), folder / "pairs.parquet"
    )
    write_jsonl(folder / "chats.jsonl", [{"messages": _chat(number)} for number in range(0, 60, 3)])
    (folder / "stories").mkdir()
    for animal in ANIMALS[:3]:
        told = " ".join(answer for _, answer in FACTS if animal in answer)
        (folder / "stories" / f"{animal}.txt").write_text(f"The {animal}\n\n{told}\n", encoding="utf-8")
    return folder


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def _chat(first: int) -> list[dict[str, str]]:
    turns = [("user", "assistant")[turn % 2] for turn in range(6)]
    texts = [text for fact in FACTS[first : first + 3] for text in fact]
    spoken = [{"role": role, "content": text} for role, text in zip(turns, texts, strict=True)]
    return [{"role": "system", "content": "You know animals."}, *spoken]
