"""What of a training example is learned: its text in parts that carry loss, and parts that are only read."""

from collections.abc import Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from moslora.data.tokens import IGNORED, Example

LEARNED_MARKS = "«»"


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


def marked_lines(parts: Sequence[tuple[str, bool]], *, longest_part: int = 300, most_lines: int = 24) -> list[str]:
    """The parts of `marked_text` as lines of text, with LEARNED_MARKS around what carries loss.

    A part of more than `longest_part` characters is shown without its middle, and so are more than `most_lines` lines.
    Characters that a terminal would act on are shown as their replacement.
    """
    first, last = LEARNED_MARKS
    shown = [_shortened(_printable(text), longest_part) for text, _ in parts]
    text = "".join(f"{first}{one}{last}" if learns else one for one, (_, learns) in zip(shown, parts, strict=True))
    lines = text.removesuffix("\n").split("\n")
    if len(lines) <= most_lines:
        return lines
    half = most_lines // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} ... {len(text) - 2 * half:,} characters ... {text[-half:]}"
