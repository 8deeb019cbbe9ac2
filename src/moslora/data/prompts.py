"""The one builder of prompts, used by training and evaluation alike, so both see the very same text and token ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.errors import DataError, unknown_name

PROMPTS = ("alpaca", "plain")

# The instruct template of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), which LLM-Adapters and the paper use.
_ALPACA_HEAD = "Below is an instruction that describes a task"
_ALPACA_INPUT = ", paired with an input that provides further context"
_ALPACA_TAIL = ". Write a response that appropriately completes the request.\n\n"


def build_prompt(sample: Mapping[str, Any], *, style: str = "alpaca") -> str:
    """The text before the response, ending in a newline so that prompt and response tokenise apart.

    `sample` holds an `instruction` and, optionally, an `input` (missing, None and "" mean none).

    Raises ConfigError for an unknown style, DataError for a field that is not text.
    """
    if style not in PROMPTS:
        raise unknown_name("prompt style", style, PROMPTS)
    instruction, given = sample.get("instruction"), sample.get("input") or ""
    if not isinstance(instruction, str) or not isinstance(given, str):
        field, value = ("input", given) if isinstance(instruction, str) else ("instruction", instruction)
        raise DataError(f"field '{field}' is {value!r}, expected text; correct the sample")
    if style == "plain":
        return f"{instruction}\n" + (f"{given}\n" if given else "") + "Response:\n"
    head = _ALPACA_HEAD + (_ALPACA_INPUT if given else "") + _ALPACA_TAIL
    middle = f"### Input:\n{given}\n\n" if given else ""
    return f"{head}### Instruction:\n{instruction}\n\n{middle}### Response:\n"


def prompt_ids(
    samples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, *, style: str
) -> list[list[int]]:
    """The token ids of each sample's prompt, with the tokenizer's start token if it adds one, without an end token."""
    texts = [build_prompt(sample, style=style) for sample in samples]
    all_ids: list[list[int]] = tokenizer(texts)["input_ids"] if texts else []  # pyright: ignore[reportAssignmentType]
    end = tokenizer.eos_token_id
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in all_ids]


def response_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The token ids of each response, without start or end token."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]
