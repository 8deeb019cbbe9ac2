"""What a model answered, written down: a JSON object per prompt, or a folder with a text file per prompt.

In a folder the texts stand by who gave them (`adapter/0001.txt`, `base/0001.txt`), with the prompts in `prompts.csv`:
what `moslora judge serve` compares.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moslora.data.asked import Asked
from moslora.errors import ConfigError
from moslora.files import check_new_file, check_new_folder, new_file, new_folder
from moslora.runs.kinds.speaking import Spoken

LINES = ".jsonl"
OTHERS = (".json", ".txt", ".csv", ".tsv", ".md", ".parquet")
ADAPTER, BASE, PROMPTS = "adapter", "base", "prompts.csv"


def answer_objects(
    asked: Sequence[Asked], spoken: Sequence[Spoken], base: Sequence[Spoken] | None = None
) -> list[dict[str, Any]]:
    """An object for each prompt: `prompt`, `answer`, their `tokens`, the base's if it was asked, and the `id`."""
    objects = []
    for index, (one, said) in enumerate(zip(asked, spoken, strict=True)):
        found: dict[str, Any] = {"id": one.name, "prompt": one.text, "answer": said.text, "tokens": said.tokens}
        if base is not None:
            found |= {"base_answer": base[index].text, "base_tokens": base[index].tokens}
        objects.append({name: value for name, value in found.items() if value is not None})
    return objects


def as_lines(objects: Sequence[dict[str, Any]]) -> str:
    """JSON lines."""
    return "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in objects)


def check_output(path: Path) -> None:
    """Refuse early what `write_answers` would refuse. Raises ConfigError for a name, OutputError for what is there."""
    if path.suffix.lower() in OTHERS:
        raise ConfigError(
            f"--output {path}: answers are written as JSON lines, to a name that ends in {LINES}, or one .txt file each"
            " into a folder"
        )
    if path.suffix.lower() != LINES:
        check_new_folder(path)
        return
    check_new_file(path)


def write_answers(
    path: Path, asked: Sequence[Asked], spoken: Sequence[Spoken], base: Sequence[Spoken] | None = None
) -> None:
    """Write the answers to a new file or folder, the whole or nothing. Raises OutputError."""
    if path.suffix.lower() == LINES:
        with new_file(path) as place:
            place.write_text(as_lines(answer_objects(asked, spoken, base)), encoding="utf-8")
        return
    width = max(4, len(str(len(asked))))
    names = [f"{number:0{width}}" for number in range(1, len(asked) + 1)]
    said = {ADAPTER: spoken} | ({} if base is None else {BASE: base})
    with new_folder(path) as folder:
        for who, texts in said.items():
            (folder / who).mkdir()
            for name, one in zip(names, texts, strict=True):
                (folder / who / f"{name}.txt").write_text(f"{one.text}\n", encoding="utf-8")
        table = io.StringIO()
        rows = [[name, one.text] for name, one in zip(names, asked, strict=True)]
        csv.writer(table, lineterminator="\n").writerows([["name", "prompt"], *rows])
        (folder / PROMPTS).write_text(table.getvalue(), encoding="utf-8")
