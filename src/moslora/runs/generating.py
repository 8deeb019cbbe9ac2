"""Generating text with an adapter, printed as it is made."""

from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase, TextStreamer, set_seed

from moslora.data.prompts import prompt_ids
from moslora.data.tokens import end_token_id, pad_token_id
from moslora.errors import ConfigError
from moslora.evaluation.inference import evaluation_mode, input_device
from moslora.runs.adapters import Opened


class Speaker:
    """A model that completes prompts and keeps up a conversation, on stdout."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.messages: list[dict[str, str]] = []
        sampling: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature > 0 else {}
        self.settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            pad_token_id=pad_token_id(tokenizer),
            eos_token_id=end_token_id(tokenizer),
            **sampling,
        )
        set_seed(seed)

    def complete(self, prompt: str, opened: Opened) -> str:
        """Answer one instruction, in the prompt format the adapter was trained with."""
        if opened.recipe is not None and opened.recipe.data.format == "chat":
            return self.reply(prompt)
        return self._generate(prompt_ids([{"instruction": prompt}], self.tokenizer, style=opened.prompt_style)[0])

    def reply(self, message: str) -> str:
        """Answer a turn of the conversation, through the tokenizer's chat template."""
        if not self.tokenizer.chat_template:
            raise ConfigError("this model's tokenizer has no chat template: give a prompt instead of --chat")
        self.messages.append({"role": "user", "content": message})
        ids: Any = self.tokenizer.apply_chat_template(self.messages, add_generation_prompt=True, return_dict=False)
        answer = self._generate(list(ids))
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    def _generate(self, ids: list[int]) -> str:
        inputs = torch.tensor([ids], device=input_device(self.model))
        streamer = TextStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)  # pyright: ignore[reportArgumentType]
        with evaluation_mode(self.model):
            output: Any = self.model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=self.settings,
                streamer=streamer,
            )
        return str(self.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))
