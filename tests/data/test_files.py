import csv
import gzip
import json
import re
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moslora.data.files import read_json, read_rows
from moslora.errors import DataError

ROWS = [{"instruction": "Größe?\u2028 a\nb", "output": 'x, "y"'}, {"instruction": "two", "output": "z"}]


def refusal(path, **options):
    with pytest.raises(DataError) as caught:
        read_rows(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def written(path, text):
    content = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path, suffix, packed):
    plain = tmp_path / f"plain{suffix}"
    if suffix == ".jsonl":
        plain.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    elif suffix == ".json":
        plain.write_text(json.dumps(ROWS), encoding="utf-8")
    elif suffix in (".csv", ".tsv"):
        between = "," if suffix == ".csv" else "\t"
        lines = [("instruction", "output"), ('"Größe?\u2028 a\nb"', '"x, ""y"""'), ("two", "z")]
        plain.write_text("".join(between.join(line) + "\n" for line in lines), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), plain)
    path = written(tmp_path / f"set{suffix}{packed}", plain.read_bytes())
    assert read_rows(path) == ROWS
    assert read_rows(path, limit=1) == ROWS[:1]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    assert read_rows(written(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n\r\n')) == [{"a": 1}, {"a": 2}]
    assert read_rows(written(tmp_path / "a.csv", b"\xef\xbb\xbfa,b\r\n1,2\r\n")) == [{"a": "1", "b": "2"}]


def test_lines_end_where_json_and_csv_say_and_not_at_other_separators(tmp_path):
    text = "a\u2028b\u0085c\u2029d\x0be"
    rows = [{"a": text}, {"a": "f"}]
    plain = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    assert read_rows(written(tmp_path / "a.jsonl", plain)) == rows
    assert read_rows(written(tmp_path / "a.csv", f"a\n{text}\nf\n".encode())) == rows


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.jsonl", '\ufeff [{"a": 1},\n{"a": 2}]'),
        ("lines.json", '{"a": 1}\n{"a": 2}\n'),
        ("spaced.jsonl", '{"a": 1}\n\n  \n{"a": 2}\n\n'),
    ],
)
def test_lists_and_lines_are_told_by_what_is_in_the_file(tmp_path, name, text):
    assert read_rows(written(tmp_path / name, text)) == [{"a": 1}, {"a": 2}]


def test_blank_lines_and_semicolons_of_a_spreadsheet_do_no_harm(tmp_path):
    rows = [{"a": "1", "b": "2,5"}, {"a": "3", "b": "4"}]
    assert read_rows(written(tmp_path / "a.csv", "a;b\r\n1;2,5\r\n\r\n3;4\r\n\r\n")) == rows
    assert read_rows(written(tmp_path / "c.csv", "\n\na\tb\n1\t2,5\n3\t4\n")) == rows
    assert read_rows(written(tmp_path / "d.csv", "a\n1;2\n")) == [{"a": "1;2"}]
    assert read_rows(written(tmp_path / "b.csv", "a;b,c\n1,2\n")) == [{"a;b": "1", "c": "2"}]


def test_the_column_of_numbers_that_a_table_was_written_with_has_no_name(tmp_path):
    assert read_rows(written(tmp_path / "a.csv", ",a\n0,x\n")) == [{"(unnamed)": "0", "a": "x"}]


def test_a_text_file_is_one_document(tmp_path):
    text = "One.\r\n\r\nTwo, ä.\r\n".encode()
    assert read_rows(written(tmp_path / "a.txt", b"\xef\xbb\xbf" + text)) == [{"text": "One.\n\nTwo, ä.\n"}]
    assert "no samples" in refusal(written(tmp_path / "b.txt", " \n"))


def test_a_missing_file_names_the_nearest_one_beside_it(tmp_path):
    (tmp_path / "training.jsonl").touch()
    assert "no such file; did you mean 'training.jsonl'" in refusal(tmp_path / "trianing.jsonl")


def test_a_missing_file_names_what_its_folder_has(tmp_path):
    assert f"no such file ({tmp_path} is empty)" in refusal(tmp_path / "x.jsonl")
    for number in range(7):
        (tmp_path / f"file-{number}").touch()
    hint = "(file-0, file-1, file-2, file-3, file-4 and 2 more)".replace("(", f"({tmp_path} has: ")
    assert hint in refusal(tmp_path / "x.jsonl")


def test_a_missing_folder_and_a_folder_given_as_file_are_told_apart(tmp_path):
    assert f"no such file, and no folder {tmp_path / 'gone'}" in refusal(tmp_path / "gone" / "x.jsonl")
    assert "is a folder, not a file" in refusal(tmp_path)


def test_an_unknown_format_lists_the_known_ones(tmp_path):
    message = refusal(written(tmp_path / "a.docx", "hello"))
    assert "unknown format '.docx' (allowed: .jsonl, .json, .csv, .tsv, .parquet, .txt, each also with .gz)" in message


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', "broken JSON at line 2, column 6 (Expecting value)"),
        ("a.jsonl.gz", '{"a": 1}\n{"a" 1}\n', "broken JSON at line 2, column 6 (Expecting ':' delimiter)"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2 holds a list, expected an object"),
        ("a.jsonl", '{"a": 1}\ntrue\n', "line 2 holds a boolean, expected an object"),
        ("a.jsonl", '{"a": 1}\nnull\n', "line 2 holds null, expected an object"),
        ("a.jsonl", '{"a": 1}\n1.5\n', "line 2 holds a number, expected an object"),
        ("a.jsonl", "[" * 100_000, "broken JSON at or after line 1"),
        ("a.jsonl", "1" * 5000, "broken JSON at or after line 1"),
        ("a.jsonl", '{"a": 1}\n{"b": 1, "a": 1, "b": 2}\n', "line 2 (the name 'b' occurs twice in an object)"),
        ("a.jsonl", "\n \n", "no samples"),
        ("a.csv", "a,\n1,2\n", "line 1: the header ['a', ''] has an empty or repeated name"),
        ("a.json", '[{"a": 1},\n {"a": }]', "broken JSON at line 2, column 8 (Expecting value)"),
        ("a.json", '[1]\n{"a": 2}', "broken JSON at line 2, column 1 (Extra data); one object per line belongs in"),
        ("a.json", '{"a": 1}', "holds an object, expected a list of objects"),
        ("a.json", '[{"a": 1}, "b"]', "sample 2 holds a text, expected an object"),
        ("a.json", "[]", "no samples"),
        ("a.json", "", "no samples"),
        ("a.csv", "", "no samples"),
        ("a.csv", "a,b\n", "no samples"),
        ("a.csv", 'a,b\n"1\n1",2\n3\n', "line 4: 1 cells, the header has 2"),
        ("a.csv", "a,b\n1,2,3\n", "line 2: 3 cells, the header has 2"),
        ("a.csv", "a,a\n1,2\n", "line 1: the header ['a', 'a'] has an empty or repeated name"),
        ("a.csv", 'a\n1\n"2', "broken CSV at line 3 (unexpected end of data)"),
        ("a.parquet", "no parquet", "Parquet magic bytes not found"),
        ("a.parquet", "", "not a readable Parquet file ("),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}', "line 2: byte 0xff is not UTF-8"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, name, text, message):
    assert message in refusal(written(tmp_path / name, text))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [("my table.csv", "latin-1"), ("a.csv.gz", "cp1252"), ("a.tsv", "utf-16"), ("a.txt", "cp1252")],
)
def test_a_file_that_is_not_utf_8_is_read_once_converted_as_the_message_says(tmp_path, name, encoding):
    text = "Frage\tAntwort\nWer f\u00e4ngt K\u00e4se?\tNiemand\n" + (
        "\u201eK\u00e4se\u201c\tF\u00fcr 3 \u20ac\n" if encoding != "latin-1" else ""
    )
    content = text.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    message = refusal(path)
    line = "line 1: byte 0xff" if encoding == "utf-16" else "line 2: byte 0xe4"
    kind = "UTF-8" if name == "a.txt" else "CSV UTF-8"
    assert message.startswith(f"{path}: {line} is not UTF-8; save it as {kind}, or: iconv -f ")
    told = message.partition("iconv -f ")[2].split(" ", 1)
    assert (
        told[1]
        == f"-t UTF-8 {shlex.quote(str(path).removesuffix('.gz'))} > NEW{path.with_suffix('').suffix or path.suffix}"
    )
    assert content.decode(told[0]) == text


def test_a_cell_may_hold_a_picture_and_the_limit_of_other_readers_stays(tmp_path):
    limit, picture = csv.field_size_limit(), "x" * 200_000
    assert read_rows(written(tmp_path / "a.tsv", f"index\timage\n1\t{picture}\n")) == [{"index": "1", "image": picture}]
    assert read_rows(tmp_path / "a.tsv", limit=1)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("content", ['{"a": [1]}', "3", '["a"]'])
def test_a_json_file_is_read_whatever_it_holds(tmp_path, content):
    assert read_json(written(tmp_path / "a.json", content)) == json.loads(content)


def test_a_broken_or_missing_json_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json: broken JSON at line 1, column 2"):
        read_json(written(tmp_path / "a.json", "{a"))
    with pytest.raises(DataError, match=r"b\.json: no such file \(.* has: a\.json\); check the path"):
        read_json(tmp_path / "b.json")


def test_an_empty_parquet_table_is_refused(tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "no samples" in refusal(tmp_path / "a.parquet")


def test_rows_after_the_limit_are_not_read(tmp_path):
    assert read_rows(written(tmp_path / "a.jsonl", '{"a": 1}\nbroken'), limit=1) == [{"a": 1}]


@pytest.mark.parametrize(
    "content", [b"plain text", gzip.compress(b"x" * 5000, mtime=0)[:-12], b"\x1f\x8b\x08\x00broken!!!!!!!!"]
)
def test_what_is_named_gzip_but_is_not_or_is_cut_short_is_refused(tmp_path, content):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(content)
    assert re.search(r"damaged or not gzip \(.+\)", refusal(path))


def test_an_unreadable_file_is_refused_with_the_reason(tmp_path, monkeypatch):
    path = written(tmp_path / "a.jsonl", "{}")
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: (_ for _ in ()).throw(PermissionError(13, "denied")))
    assert "cannot be read (denied)" in refusal(path)
