"""Answering questions about pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from moslora.data.asked import Asked
from moslora.data.images import check_image, open_image
from moslora.errors import ConfigError
from moslora.evaluation.asking import Prompt, answers
from moslora.runs.kinds.speaking import Spoken
from moslora.runs.kinds.vision_material import MARKER, question_ids
from moslora.runs.processors import placeholder
from moslora.training.vision_language import inputs_beside


class PictureSpeaker:
    """A model that answers prompts about pictures, each for itself.

    `images` are given with every prompt, at its front, unless the prompt says with `<image>` where they stand. Raises
    DataError for a picture that cannot be opened, ConfigError for a sampling temperature.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor: Any,
        *,
        images: Sequence[Path] = (),
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        if temperature > 0:
            raise ConfigError(f"answers about pictures are not sampled: leave out --temperature {temperature:g}")
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        self.images = [str(image) for image in images]
        self.headers = [check_image(image, place="--image") for image in self.images]
        set_seed(seed)

    def answers(self, asked: Sequence[Asked], *, batch_size: int, progress: bool) -> list[Spoken]:
        """The answers to prompts, in their order. Raises ConfigError for what stands beside a prompt's text."""
        prompts = [self._prompt(one) for one in asked]
        number = placeholder(self.processor)[1]
        found = answers(
            self.model,
            self.processor,
            prompts,
            see=partial(inputs_beside, model=self.model, processor=self.processor, image_token_id=number),
            max_new_tokens=self.max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
        return [Spoken(text) for text in found]

    def say(self, asked: Asked) -> Spoken:
        """Answer one prompt on stdout."""
        (spoken,) = self.answers([asked], batch_size=1, progress=False)
        print(spoken.text)
        return spoken

    def _prompt(self, asked: Asked) -> Prompt:
        if asked.messages or asked.request.get("system") or asked.request.get("history"):
            raise ConfigError("a model that sees pictures takes a single prompt: leave out system messages and chats")
        text = asked.text if MARKER in asked.text else f"{MARKER}\n" * len(self.images) + asked.text
        if text.count(MARKER) != len(self.images):
            raise ConfigError(
                f"the prompt has {text.count(MARKER)} {MARKER} for {len(self.images)} pictures: write one for each"
            )
        ids = question_ids(text, self.processor, headers=self.headers)
        return Prompt(ids, lambda: [open_image(image, place="--image") for image in self.images])
