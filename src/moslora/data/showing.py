"""What of a training example is learned: its text in parts that carry loss, and parts that are only read."""

from itertools import groupby

from transformers import PreTrainedTokenizerBase

from moslora.data.tokens import IGNORED, Example


def marked_text(example: Example, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, bool]]:
    """The text of an example, special tokens included, in order: each part with whether its tokens carry loss.

    The parts joined are what the tokenizer makes of all ids. A character that spans two parts stands in the later one.
    """
    ids = example["input_ids"]
    parts: list[tuple[str, bool]] = []
    end, told = 0, ""
    for is_learned, run in groupby(example["labels"], key=lambda label: label != IGNORED):
        end += sum(1 for _ in run)
        text = str(tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False))
        if end < len(ids):  # an unfinished character is shown as its replacement until its last byte is there
            text = text.rstrip("\ufffd")
        if len(text) > len(told):
            parts.append((text[len(told) :], is_learned))
            told = text
    return parts
