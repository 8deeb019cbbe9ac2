"""The one builder of prompts, used by training and evaluation alike, so both see the very same text and token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.spans import labelled
from moslora.data.tasks import RESPONSE_START
from moslora.data.template import ChatTemplate
from moslora.errors import ConfigError, DataError, unknown_name

PROMPTS = ("alpaca", "plain")
CHAT = "chat"  # through the tokenizer's chat template, the only one for chats
NONE = "none"  # the text as it is
STYLES = (*PROMPTS, CHAT, NONE)

# The instruct template of Stanford Alpaca (github.com/tatsu-lab/stanford_alpaca), which LLM-Adapters and the paper use.
_ALPACA_HEAD = "Below is an instruction that describes a task"
_ALPACA_INPUT = ", paired with an input that provides further context"
_ALPACA_TAIL = ". Write a response that appropriately completes the request.\n\n"


@dataclass(frozen=True)
class Request:
    """What a sample asks: an instruction with an input, a system message (each "" if there is none), earlier turns."""

    instruction: str
    given: str
    system: str
    history: list[tuple[str, str]]


def read_request(sample: Mapping[str, Any]) -> Request:
    """The request of a sample with `instruction` and, optionally, `input`, `system` and `history`.

    Raises DataError for a field that is not text, or a history that is not a list of [question, answer].
    """
    given, system = (sample.get(name) or "" for name in ("input", "system"))
    if not isinstance(sample.get("instruction"), str):
        raise DataError(f"field 'instruction' is {sample.get('instruction')!r}, expected text; correct the sample")
    for name, text in (("input", given), ("system", system)):
        if not isinstance(text, str):
            raise DataError(f"field '{name}' is {text!r}, expected text or nothing; correct the sample")
    history = sample.get("history") or []
    if not isinstance(history, list) or not all(_is_turn(turn) for turn in history):
        raise DataError(
            f"field 'history' is {history!r}, expected a list of [question, answer] as texts; correct the sample"
        )
    return Request(sample["instruction"], given, system, [(question, answer) for question, answer in history])


def build_prompt(sample: Mapping[str, Any], *, style: str = "alpaca") -> str:
    """The text before the response, ending in a newline so that prompt and response tokenise apart.

    `sample` holds an `instruction` and, optionally, an `input`, a `system` message (in place of Alpaca's first line)
    and a `history` of earlier turns, [question, answer] each; missing, None and empty mean none.

    The style `none` is the instruction as it is, and the input below it.

    Raises ConfigError for an unknown style, DataError for a field that is not text, or that `none` has no place for.
    """
    if style not in (*PROMPTS, NONE):
        raise unknown_name("prompt style", style, (*PROMPTS, NONE))
    request = read_request(sample)
    given, system = request.given, request.system
    if style == NONE:
        if system or request.history:
            name = "system" if system else "history"
            raise DataError(
                f"field '{name}' has no place in the prompt '{NONE}'; choose {', '.join(PROMPTS)} or {CHAT}"
            )
        return f"{request.instruction}\n{given}" if given else request.instruction
    if style == "plain":
        head = f"{system}\n" if system else ""
        earlier = "".join(f"{question}\nResponse:\n{answer}\n" for question, answer in request.history)
        return f"{head}{earlier}{request.instruction}\n" + (f"{given}\n" if given else "") + "Response:\n"
    head = f"{system}\n\n" if system else _ALPACA_HEAD + (_ALPACA_INPUT if given else "") + _ALPACA_TAIL
    earlier = "".join(f"### Instruction:\n{asked}\n\n### Response:\n{said}\n\n" for asked, said in request.history)
    middle = f"### Input:\n{given}\n\n" if given else ""
    return f"{head}{earlier}### Instruction:\n{request.instruction}\n\n{middle}### Response:\n"


def prompt_ids(
    samples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, *, style: str
) -> list[list[int]]:
    """The token ids of each sample's prompt, with the tokenizer's start token if it adds one, without an end token.

    `chat` renders the question as the user's turn, up to where a trained answer of the assistant starts. Raises
    ConfigError for it if the tokenizer has no chat template, DataError for one whose answers cannot be told apart.
    """
    if style == CHAT:
        return _chat_prompts(samples, tokenizer)
    texts = [build_prompt(sample, style=style) for sample in samples]
    all_ids: list[list[int]] = tokenizer(texts)["input_ids"] if texts else []  # pyright: ignore[reportAssignmentType]
    end = tokenizer.eos_token_id
    return [ids[:-1] if ids and ids[-1] == end else ids for ids in all_ids]


def response_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The token ids of each response, without start or end token."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def _chat_prompts(samples: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the prompt 'chat' needs a chat template, and the tokenizer has none; choose {' or '.join(PROMPTS)}"
        )
    template = ChatTemplate(tokenizer)
    chats = [as_chat(read_request(sample)) for sample in samples]
    start = _answer_start(chats[0], template) if chats else []
    return [template.ids(chat, place="the question", add_generation_prompt=True) + start for chat in chats]


def as_chat(request: Request) -> list[dict[str, Any]]:
    """The request as messages, the last of which is the user's."""
    turns = [("system", request.system)] if request.system else []
    for question, answer in request.history:
        turns += [("user", question), ("assistant", answer)]
    turns.append(("user", f"{request.instruction}\n{request.given}" if request.given else request.instruction))
    return [{"role": role, "content": content} for role, content in turns]


def _answer_start(chat: list[dict[str, Any]], template: ChatTemplate) -> list[int]:
    """What the template puts between its generation prompt and an answer, such as an empty thought."""
    answer, place = RESPONSE_START.strip(), "the question"
    asked = template.text(chat, place=place, add_generation_prompt=True)
    prompt = template.ids(chat, place=place, add_generation_prompt=True)
    text = template.text([*chat, {"role": "assistant", "content": answer}], place=place)
    divided = [(len(asked), len(text))] if text.startswith(asked) else []
    whole = labelled(text, divided, template.tokenizer, place=place)["input_ids"]
    (ids,) = response_ids([answer], template.tokenizer)
    rest = whole[len(prompt) :]
    starts = [start for start in range(len(rest)) if rest[start : start + len(ids)] == ids]
    if whole[: len(prompt)] != prompt or not starts:
        raise DataError(
            "the chat template renders an answer differently from what follows its generation prompt, so answers cannot"
            f" be scored with it; set evaluation.prompt to {' or '.join(PROMPTS)}"
        )
    return rest[: starts[0]]


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, (list, tuple)) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
