"""The text of an example with what is learned marked."""

import pytest

from moslora.data.examples import instruction_examples
from moslora.data.showing import marked_lines, marked_text
from moslora.data.tokens import IGNORED

SAMPLE = {"instruction": "Größe?", "output": "klein — 1 m²"}


def example(tokenizer, **options):
    settings = {"prompt_style": "plain", "loss_on": "response", "source": "x", **options}
    return instruction_examples([SAMPLE], tokenizer, **settings)[0]


def test_the_response_and_its_end_are_marked(tiny_tokenizer):
    found = marked_text(example(tiny_tokenizer), tiny_tokenizer)
    assert [is_learned for _, is_learned in found] == [False, True]
    assert found[0][0].endswith("Größe?\nResponse:\n")
    assert found[1][0] == SAMPLE["output"] + tiny_tokenizer.eos_token


def test_all_of_a_learned_sequence_is_one_marked_part(tiny_tokenizer):
    made = example(tiny_tokenizer, loss_on="sequence")
    assert marked_text(made, tiny_tokenizer) == [(tiny_tokenizer.decode(made["input_ids"]), True)]


@pytest.mark.parametrize("cut", range(1, 20))
def test_parts_join_to_the_whole_text_even_within_a_character(tiny_tokenizer, cut):
    ids = tiny_tokenizer("ä€😀 done", add_special_tokens=False)["input_ids"]
    labels = [IGNORED if place < cut else token for place, token in enumerate(ids)]
    parts = marked_text({"input_ids": ids, "labels": labels}, tiny_tokenizer)
    assert "".join(text for text, _ in parts) == "ä€😀 done"
    assert len(parts) <= 2


def test_what_is_learned_stands_between_marks_line_by_line():
    parts = [("user\nHello\nassistant\n", False), ("Goodbye.\n", True), ("\n", False)]
    assert marked_lines(parts) == ["user", "Hello", "assistant", "«Goodbye.", "»"]


def test_long_parts_and_many_lines_are_shown_without_their_middle():
    (line,) = marked_lines([("a" * 5000, False), ("b" * 10, True)], longest_part=20)
    assert line == "aaaaaaaaaa ... 4,980 characters ... aaaaaaaaaa«bbbbbbbbbb»"
    lines = marked_lines([("\n".join(map(str, range(100))), True)], most_lines=6)
    assert lines == ["«0", "1", "2", "... 94 lines ...", "97", "98", "99»"]


def test_what_a_terminal_would_act_on_is_not_shown():
    assert marked_lines([("red \x1b[31m\rpill\tbox", True)]) == ["«red \ufffd[31m\ufffdpill\tbox»"]
