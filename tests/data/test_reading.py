"""Where samples stand, and what becomes of those that cannot be used."""

import pytest

from moslora.data.files import read_rows
from moslora.data.reading import Reading
from moslora.errors import DataError

LINES = ['{"a": 1}', "", '{"a": 2', "[3]", '{"a": 4}']


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def test_a_sample_is_told_by_its_number_and_by_its_line_where_that_is_another(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n \n{"a": 2}\n')
    reading = Reading(str(path))
    assert read_rows(path, reading=reading) == [{"a": 1}, {"a": 2}]
    assert reading.places == [f"{path}: sample 1", f"{path}: sample 2 (line 4)"]
    table = tmp_path / "a.csv"
    table.write_text('a,b\n1,"2\n3"\n\n4,5\n')
    reading = Reading(str(table))
    assert read_rows(table, reading=reading) == [{"a": "1", "b": "2\n3"}, {"a": "4", "b": "5"}]
    assert reading.places == [f"{table}: sample 1 (line 2)", f"{table}: sample 2 (line 5)"]


def test_the_first_bad_line_stops(lines):
    with pytest.raises(DataError, match=r"a\.jsonl: broken JSON at line 3, column 8"):
        read_rows(lines, reading=Reading(str(lines)))


def test_bad_lines_are_left_out_and_the_places_stay_right(lines):
    reading = Reading(str(lines), skips_bad=True)
    assert read_rows(lines, reading=reading) == [{"a": 1}, {"a": 4}]
    assert reading.places == [f"{lines}: sample 1", f"{lines}: sample 4 (line 5)"]
    (note,) = reading.left_out()
    assert note.startswith(f"{lines}: 2 samples that cannot be used were left out (broken JSON at line 3, column 8")
    assert note.endswith(" | line 4 holds a list, expected an object with named fields; correct it)")


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n{"a": 2}\n')
    reading = Reading(str(path), skips_bad=True)
    assert read_rows(path, reading=reading) == [{"a": 1}, {"a": 2}]
    convert = f"iconv -f LATIN1 -t UTF-8 {path} > NEW.jsonl"
    assert reading.reasons == [f"line 2: byte 0xff is not UTF-8; save it as UTF-8, or: {convert}"]


def filled(*, good, bad):
    reading = Reading("x", skips_bad=True)
    reading.add(good + bad)
    for index in range(bad):
        with reading.checking(index) as place:
            raise DataError(f"{place} is odd")
    return reading


def test_up_to_five_in_a_hundred_may_be_left_out():
    reading = filled(good=95, bad=5)
    reading.check()
    assert reading.kept() == [*range(5, 100)]
    assert reading.left_out() == [
        "x: 5 samples that cannot be used were left out (sample 1 is odd [and 4 more like it])"
    ]
    with pytest.raises(DataError) as caught:
        filled(good=94, bad=5).check()
    assert str(caught.value) == (
        "x: 5 of 99 samples cannot be used, and data.on_bad skip leaves out at most 5%: sample 1 is odd [and 4 more"
        " like it]; or take such samples out of the file"
    )


def test_each_reason_is_told_once_and_three_of_them_at_most():
    reading = Reading("x", skips_bad=True)
    reading.add(7)
    for index, reason in enumerate(["has 3 ears", "is odd", "has 4 ears", "is red", "is blue", "is odd", "is green"]):
        with reading.checking(index) as place:
            raise DataError(f"{place} {reason}")
    (note,) = reading.left_out()
    told = "sample 1 has 3 ears [and 1 more like it] | sample 2 is odd [and 1 more like it] | sample 4 is red"
    assert note == f"x: 7 samples that cannot be used were left out ({told} | and 2 more)"


def test_a_source_without_bad_samples_has_no_note():
    assert filled(good=3, bad=0).left_out() == []
