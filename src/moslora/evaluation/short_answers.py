"""Questions with short answers: the model's text, chosen greedily, against the answers that count as right.

What is compared is the first line of the text that is not blank, made alike with the answers: `alike` says how.
"""

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from moslora.data.prompts import prompt_ids, response_ids
from moslora.evaluation.answers import Answer
from moslora.evaluation.generating import generated_texts
from moslora.evaluation.majority import SEVERAL

RULE = "exact match of the first line, without regard to case, punctuation, articles and spaces"
SPARE_TOKENS = 16  # beside the longest answer that counts as right: a longer text is wrong, whatever follows

_ARTICLES = frozenset({"a", "an", "the"})
_OF_A_NUMBER = re.compile(r"(?<=\d)\.(?=\d)|(?<!\w)[-−](?=\.?\d)|(?<!\w)\.(?=\d)")
_SIGNS = {"-": "−", ".": "·"}  # what keeps a number's point and minus through the removal of punctuation


def alike(text: str) -> str:
    """An answer as it is compared, after SQuAD's example: small letters, no punctuation, no articles, single spaces.

    A number keeps its point and its minus sign, so that 3.5 is not 35. Characters that Unicode holds for the same
    (full-width ones, ligatures) are the same.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-")
    text = _OF_A_NUMBER.sub(lambda found: _SIGNS[found[0]], text)
    text = "".join(sign for sign in text if sign in _SIGNS.values() or not _is_punctuation(sign))
    return " ".join(word for word in text.split() if word not in _ARTICLES)


def score_short_answers(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Mapping[str, Any]],
    *,
    prompt_style: str,
    batch_size: int,
    progress: bool,
) -> list[Answer]:
    """What the model answers each question with, and whether that is one of its `answers`; in the samples' order.

    Nothing is sampled, and the model's own generation settings are set aside; its mode is restored. Raises DataError
    for a question longer than the model's positions.
    """
    prompts = prompt_ids(samples, tokenizer, style=prompt_style)
    longest = max(map(len, response_ids([one for sample in samples for one in sample["answers"]], tokenizer)))
    texts = generated_texts(
        model,
        tokenizer,
        prompts,
        num_beams=1,
        max_new_tokens=longest + SPARE_TOKENS,
        batch_size=batch_size,
        progress=progress,
    )
    return [_answer(index, sample, text) for index, (sample, text) in enumerate(zip(samples, texts, strict=True))]


def _answer(index: int, sample: Mapping[str, Any], text: str) -> Answer:
    said = text.strip().split("\n")[0].strip()
    predicted = alike(said)
    is_correct = bool(predicted) and predicted in map(alike, sample["answers"])
    return Answer(
        index,
        SEVERAL.join(sample["answers"]),
        predicted or None,
        is_correct,
        kind=sample.get("kind"),
        text=text,
        group=sample.get("group"),
        is_read=bool(predicted),
    )


def _is_punctuation(sign: str) -> bool:
    return sign in string.punctuation or unicodedata.category(sign).startswith("P")
