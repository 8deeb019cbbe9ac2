"""A moving average of the trained weights (EMA), which takes their place when training ends."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from moslora.errors import CheckpointError
from moslora.files import write_atomically

FILE = "average.safetensors"  # in a checkpoint


class Average(TrainerCallback):
    """Follows a model's trained weights: after each step average = decay · average + (1 - decay) · weights, in float32.

    Early on it follows faster, by (1 + step) / (10 + step), so that it does not stay at the start.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model, self.decay = model, decay
        self.values: dict[str, torch.Tensor] = {}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: one for name, one in self.model.named_parameters() if one.requires_grad}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start at the weights, unless a checkpoint was loaded."""
        self.values = self.values or {name: one.detach().float().clone() for name, one in self._trained().items()}

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Follow the weights."""
        decay = min(self.decay, (1 + state.global_step) / (10 + state.global_step))
        for name, one in self._trained().items():
            self.values[name].lerp_(one.detach().float(), 1 - decay)

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / FILE, save({name: one.contiguous() for name, one in self.values.items()}))

    def load(self, folder: Path) -> None:
        """Read the average of a checkpoint. Raises CheckpointError if it is not there."""
        if not (folder / FILE).is_file():
            raise CheckpointError(
                f"{folder} has no {FILE}: it is from a run without training.ema_decay; start that run over"
            )
        device = next(iter(self._trained().values())).device
        self.values = {name: tensor.to(device) for name, tensor in load_file(folder / FILE).items()}

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in the weights' place."""
        for name, one in self._trained().items():
            one.copy_(self.values[name])
