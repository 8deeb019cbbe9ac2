"""Answering prompts with a language model: many in batches, one as it is written, or a chat's turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteriaList, TextStreamer, set_seed

from moslora.data.asked import Asked
from moslora.data.messages import Chat
from moslora.data.prompts import CHAT, prompt_ids
from moslora.data.template import ChatTemplate
from moslora.data.tokens import pad_token_id
from moslora.data.vocabulary import Vocabulary
from moslora.errors import ConfigError, DataError
from moslora.evaluation.generating import generated_ids, positions_of
from moslora.evaluation.inference import end_token_ids, evaluation_mode, generation_defaults, input_device
from moslora.runs.kinds.interrupting import StopAfterToken


@dataclass(frozen=True)
class Spoken:
    """An answer, of how many tokens it is (None: not counted), and whether it was cut at the most that it may have."""

    text: str
    tokens: int | None = None
    is_cut: bool = False


class Speaker:
    """A language model that answers: requests in the prompt style `style`, chats through the tokenizer's template.

    `max_new_tokens` is the length of an answer at most. With a `temperature` above 0 answers are sampled by `seed`.
    Raises ConfigError for chats with a tokenizer that has no template.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        style: str,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        if style == CHAT and not tokenizer.chat_template:
            raise ConfigError(
                "this model's tokenizer has no chat template: leave out --chat, and choose --prompt-style alpaca or"
                " plain"
            )
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.max_new_tokens, self.temperature, self.seed = max_new_tokens, temperature, seed
        self.vocabulary = Vocabulary.of(tokenizer, model)
        self.vocabulary.check_padding()
        set_seed(seed)

    def answers(self, asked: Sequence[Asked], *, batch_size: int, progress: bool) -> list[Spoken]:
        """The answers to prompts, in their order, the same for any batch size up to rounding.

        Sampled ones are made one by one, each from the seed, so that none depends on what else is asked. Raises
        DataError for a prompt that the model has no room for.
        """
        rows = self.prompt_ids(asked)
        for number, ids in enumerate(rows, start=1):
            self._check(ids, place=f"prompt {number}" if len(rows) > 1 else "the prompt")
        shared: dict[str, Any] = {"settings": self._settings(self.max_new_tokens), "title": "answering"}
        if self.temperature == 0:
            found = generated_ids(self.model, self.tokenizer, rows, batch_size=batch_size, progress=progress, **shared)
            return [self._spoken(ids) for ids in found]
        spoken = []
        for ids in rows:
            set_seed(self.seed)
            (found,) = generated_ids(self.model, self.tokenizer, [ids], batch_size=1, progress=False, **shared)
            spoken.append(self._spoken(found))
        return spoken

    def say(self, asked: Asked) -> Spoken:
        """Answer one prompt on stdout, as the answer is written. Raises DataError as `answers` does."""
        (ids,) = self.prompt_ids([asked])
        self._check(ids, place="the prompt")
        return self.stream(ids, max_new_tokens=self.max_new_tokens)

    def prompt_ids(self, asked: Sequence[Asked]) -> list[list[int]]:
        """The token ids of each prompt. Raises DataError, or ConfigError for a chat without a template."""
        requests = [one.request for one in asked if not one.messages]
        found = iter(prompt_ids(requests, self.tokenizer, style=self.style) if requests else [])
        return [chat_ids(one, self.tokenizer) if one.messages else next(found) for one in asked]

    def room(self, ids: Sequence[int]) -> int:
        """How many tokens an answer has at most after a prompt; below 1 if there is no room for any."""
        limit = positions_of(self.model)
        return self.max_new_tokens if limit is None else min(self.max_new_tokens, limit - len(ids))

    def stream(self, ids: list[int], *, max_new_tokens: int, stop: StopAfterToken | None = None) -> Spoken:
        """Answer a prompt on stdout, as the answer is written, until it ends or `stop` is asked to."""
        inputs = torch.tensor([ids], device=input_device(self.model))
        streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)  # pyright: ignore[reportArgumentType]
        settings = self._settings(max_new_tokens)
        settings.eos_token_id = end_token_ids(self.model, self.tokenizer)
        settings.pad_token_id = pad_token_id(self.tokenizer)
        model: Any = self.model
        with evaluation_mode(model), generation_defaults(model):
            output: Any = model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=settings,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([stop] if stop else []),
            )
        return self._spoken(output[0, len(ids) :].tolist(), most=max_new_tokens)

    def _settings(self, max_new_tokens: int) -> GenerationConfig:
        sampling: dict[str, Any] = {"temperature": self.temperature} if self.temperature > 0 else {}
        return GenerationConfig(max_new_tokens=max_new_tokens, do_sample=self.temperature > 0, **sampling)

    def _spoken(self, ids: list[int], *, most: int | None = None) -> Spoken:
        has_ended = bool(ids) and ids[-1] in end_token_ids(self.model, self.tokenizer)
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        is_cut = not has_ended and len(ids) >= (most or self.max_new_tokens)
        return Spoken(text, len(ids) - has_ended, is_cut)

    def _check(self, ids: list[int], *, place: str) -> None:
        self.vocabulary.check_row(ids, place=place)
        if self.room(ids) < self.max_new_tokens:
            raise DataError(
                f"{place} has {len(ids)} tokens and its answer up to {self.max_new_tokens} more, but the model has only"
                f" {positions_of(self.model)} positions; shorten it, or ask for fewer with --max-new-tokens"
            )


def chat_ids(asked: Asked, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids of a chat up to where the model answers, all of which its template must show.

    Raises ConfigError for a tokenizer without template, DataError for messages that the template refuses or leaves out.
    """
    if not tokenizer.chat_template:
        raise ConfigError("a chat needs a chat template, and this model's tokenizer has none: ask by 'instruction'")
    template = ChatTemplate(tokenizer)
    chat = template.fitted(Chat([*asked.messages], asked.tools), place="the chat")
    template.check_shows(chat, place="the chat")
    return template.ids(chat.messages, place="the chat", tools=chat.tools, add_generation_prompt=True)
