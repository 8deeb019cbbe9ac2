"""What this machine has to train with, and about how much of it a training step takes."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

MEMORY = Path("/proc/meminfo")
USABLE = 0.8  # of the free memory
OPTIMISER_BYTES = 16  # a trained parameter: itself, its gradient and two moments, in float32
PROGRAM_BYTES = 900e6  # Python and its libraries; on an accelerator, its context
QUANTISED_BYTES = 0.56  # a parameter in 4 bits with its constants
MARGIN = 1.25  # for what the count of activations leaves out


@dataclass(frozen=True)
class Machine:
    """Cores, and the free memory in bytes of the accelerator, or of the machine where there is none."""

    cores: int
    free_bytes: int
    accelerator: str | None = None

    def __str__(self) -> str:
        """In a line."""
        free = f"{self.free_bytes / 1e9:.1f} GB free"
        return f"{self.accelerator}, {free}" if self.accelerator else f"{self.cores} cores, {free}, no accelerator"


def this_machine() -> Machine:
    """The machine that the program runs on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if torch.cuda.is_available():
        return Machine(cores, torch.cuda.mem_get_info()[0], torch.cuda.get_device_name())
    found = torch.accelerator.current_accelerator(check_available=True)
    return Machine(cores, _free_memory(), str(found).upper() if found else None)


def _free_memory() -> int:
    if MEMORY.exists():
        for line in MEMORY.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 8 << 30


@dataclass(frozen=True)
class Footprint:
    """What decides how much memory a step takes: sizes of the model, and bytes a number of its computation.

    `trainable` counts parameters of the adapter; `attention_heads` those whose scores are kept.
    """

    parameters: int
    trainable: int
    layers: int
    width: int
    inner_width: int
    attention_heads: int
    vocabulary: int
    bytes_a_number: int
    is_quantised: bool = False

    @classmethod
    def of(cls, config: Any, *, parameters: int, trainable: int, dtype: torch.dtype, is_quantised: bool) -> "Footprint":
        """From a model's configuration; sizes that it does not name are taken to be the usual ones."""
        config = config.get_text_config()
        width = int(config.hidden_size)
        return cls(
            parameters=parameters,
            trainable=trainable,
            layers=int(config.num_hidden_layers),
            width=width,
            inner_width=int(getattr(config, "intermediate_size", None) or 4 * width),
            attention_heads=int(getattr(config, "num_attention_heads", 0)),
            vocabulary=int(config.vocab_size),
            bytes_a_number=dtype.itemsize,
            is_quantised=is_quantised,
        )

    @property
    def weights_bytes(self) -> float:
        """The model's weights, and all that training keeps of the adapter's."""
        each = QUANTISED_BYTES if self.is_quantised else self.bytes_a_number
        return self.parameters * each + self.trainable * OPTIMISER_BYTES

    def step_bytes(self, *, samples: int, tokens: int, checkpointing: bool) -> float:
        """About the largest memory of a step on so many samples of so many tokens each."""
        size = self.bytes_a_number
        # Inputs of norms, projections and their adapters, the four products of a gated feed-forward, attention scores.
        layer = (10 * self.width + 4 * self.inner_width) * size + self.attention_heads * tokens * (size + 4)
        kept = self.layers * self.width * size + layer if checkpointing else self.layers * layer
        logits = self.vocabulary * (size + 8)  # as computed, in float32, and their gradient
        return self.weights_bytes + PROGRAM_BYTES + MARGIN * samples * tokens * (kept + logits)


def samples_at_once(
    footprint: Footprint, *, batch_size: int, tokens: int, free_bytes: float, checkpointing: bool
) -> int | None:
    """The most samples of a batch, dividing it evenly, that fit into the memory at once; None if not even one does."""
    for samples in range(batch_size, 0, -1):
        fits = footprint.step_bytes(samples=samples, tokens=tokens, checkpointing=checkpointing) <= USABLE * free_bytes
        if batch_size % samples == 0 and fits:
            return samples
    return None


def rounded_up(value: float, step: int) -> int:
    """The next multiple of a step."""
    return math.ceil(value / step) * step
