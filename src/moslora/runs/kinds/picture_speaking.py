"""Answering questions about pictures, printed on stdout."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from moslora.data.images import check_image, open_image
from moslora.errors import ConfigError
from moslora.evaluation.asking import Prompt, answers
from moslora.runs.kinds.vision_material import MARKER, question_ids
from moslora.training.vision_language import pixels


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

    def answer(self, text: str) -> str:
        """Answer a prompt."""
        asked = text if MARKER in text else f"{MARKER}\n" * len(self.images) + text
        if asked.count(MARKER) != len(self.images):
            raise ConfigError(
                f"the prompt has {asked.count(MARKER)} {MARKER} for {len(self.images)} pictures: write one for each"
            )
        ids = question_ids(asked, self.processor, headers=self.headers)
        prompt = Prompt(ids, lambda: [open_image(image, place="--image") for image in self.images])
        found = answers(
            self.model,
            self.processor,
            [prompt],
            pixels=partial(pixels, processor=self.processor),
            max_new_tokens=self.max_new_tokens,
            batch_size=1,
            progress=False,
        )[0]
        print(found)
        return found
