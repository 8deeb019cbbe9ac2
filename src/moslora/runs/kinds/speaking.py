"""Generating text with an adapter, printed as it is made."""

from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer, set_seed

from moslora.data.prompts import CHAT, prompt_ids
from moslora.data.tokens import pad_token_id
from moslora.data.vocabulary import Vocabulary
from moslora.errors import ConfigError
from moslora.evaluation.inference import end_token_ids, evaluation_mode, generation_defaults, input_device


class Speaker:
    """A model that answers on stdout: each prompt for itself in a prompt style, or a chat where `style` is chat.

    Raises ConfigError for a chat with a tokenizer that has no template.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        style: str,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        if style == CHAT and not tokenizer.chat_template:
            raise ConfigError(
                "this model's tokenizer has no chat template: leave out --chat, and choose --prompt-style alpaca or"
                " plain"
            )
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.messages: list[dict[str, str]] = []
        sampling: dict[str, Any] = {"temperature": temperature} if temperature > 0 else {}
        self.settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            pad_token_id=pad_token_id(tokenizer),
            eos_token_id=end_token_ids(model, tokenizer),
            do_sample=temperature > 0,
            **sampling,
        )
        self.vocabulary = Vocabulary.of(tokenizer, model)
        self.vocabulary.check_padding()
        set_seed(seed)

    def answer(self, text: str) -> str:
        """Answer an instruction, or the next turn of the chat."""
        if self.style != CHAT:
            return self._generate(prompt_ids([{"instruction": text}], self.tokenizer, style=self.style)[0])
        self.messages.append({"role": "user", "content": text})
        ids: Any = self.tokenizer.apply_chat_template(self.messages, add_generation_prompt=True, return_dict=False)
        answer = self._generate(list(ids))
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    def _generate(self, ids: list[int]) -> str:
        self.vocabulary.check([ids], place="prompt")
        inputs = torch.tensor([ids], device=input_device(self.model))
        streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)  # pyright: ignore[reportArgumentType]
        with evaluation_mode(self.model), generation_defaults(self.model):
            output: Any = self.model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=self.settings,
                streamer=streamer,
            )
        return str(self.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))
