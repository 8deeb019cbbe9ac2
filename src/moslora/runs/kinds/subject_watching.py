"""Pictures drawn while a subject is learned, which change nothing in the learning."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moslora.adapter.twin import base_of
from moslora.painting.drawing import draw
from moslora.painting.png import write_picture
from moslora.painting.requests import Request


class DrawWhileTraining(TrainerCallback):
    """Draws the same requests every so many steps, into a folder for each."""

    def __init__(
        self, model: nn.Module, requests: Sequence[Request], *, every: int, folder: Path, batch_size: int
    ) -> None:
        self.model, self.requests, self.every, self.folder = model, requests, every, folder
        self.batch_size = batch_size

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw, if it is time to, in the first process."""
        if state.global_step % self.every or not state.is_world_process_zero:
            return
        place = self.folder / f"step-{state.global_step:06d}"
        place.mkdir(parents=True, exist_ok=True)
        for drawn in draw(base_of(self.model).pipeline(), self.requests, batch_size=self.batch_size):
            write_picture(place, drawn.image, request=drawn.request, settings={"step": state.global_step})
