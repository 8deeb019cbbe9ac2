"""Drawing pictures so that each depends on its own request alone.

Every picture has a generator of its own, on the CPU, seeded by its request: the noise it starts from, and what a
sampler adds on its way, are the same in batches of any size, on any device and for every method. The pipeline is left
as it was: modes, dtypes, scheduler, and the random state of the process, so that pictures drawn while training change
nothing in the training.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from PIL import Image
from torch import nn

from moslora.errors import CheckpointError, ConfigError
from moslora.painting.decoding import decode
from moslora.painting.requests import Request

Progress = Callable[[float, int], None]  # pictures done, parts included, and their number


@dataclass(frozen=True)
class Drawn:
    """A picture with what it was drawn from: its request, and its final latents (C, H, W) on the CPU.

    `is_withheld` says that the pipeline's safety checker replaced it by a black one.
    """

    request: Request
    image: Image.Image
    latents: torch.Tensor
    is_withheld: bool = False


def draw(
    pipe: Any, requests: Sequence[Request], *, batch_size: int = 1, progress: Progress | None = None
) -> Iterator[Drawn]:
    """The pictures, in the order of their requests; neighbours with equal settings are drawn together.

    `pipe` is a diffusers pipeline of Stable Diffusion 1.5, SDXL or 3. Nothing is drawn before the first picture is
    asked for. Raises CheckpointError, naming prompt and seed, for a picture with values that are no numbers, and
    ConfigError for a batch size below 1 and for a pipeline of another kind.
    """
    if batch_size < 1:
        raise ConfigError(f"the batch size of drawing is {batch_size}; give at least 1")
    done = 0
    for batch in _batches(requests, batch_size):
        step = _step(batch, done, total=len(requests), progress=progress)
        with _undisturbed(pipe):
            drawn = _draw_batch(pipe, batch, step)
        done += len(batch)
        yield from drawn


def _batches(requests: Sequence[Request], batch_size: int) -> Iterator[list[Request]]:
    for _, group in groupby(requests, key=lambda request: request.batch_key):
        alike = list(group)
        yield from (alike[start : start + batch_size] for start in range(0, len(alike), batch_size))


def _draw_batch(pipe: Any, batch: Sequence[Request], step: Any) -> list[Drawn]:
    first = batch[0]
    latents = pipe(
        prompt=[request.prompt for request in batch],
        # An empty text is not the same as none: SDXL has zeros in the place of none.
        negative_prompt=[request.negative_prompt for request in batch] if first.negative_prompt else None,
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        width=first.width,
        height=first.height,
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in batch],
        output_type="latent",
        callback_on_step_end=step,
    ).images
    if latents.ndim != 4:
        raise ConfigError(
            f"{type(pipe).__name__} draws latents of {latents.ndim} dimensions, and pictures have 4 (batch, channels,"
            " height, width); give a pipeline of Stable Diffusion 1.5, SDXL or 3"
        )
    _check_numbers(latents, batch, "the model")
    pictures = decode(pipe, latents)
    _check_numbers(pictures.values, batch, "the autoencoder")
    kept = latents.cpu()
    return [
        Drawn(request, image, kept[place].clone(), is_withheld)
        for place, (request, image, is_withheld) in enumerate(
            zip(batch, pictures.images(), pictures.withheld, strict=True)
        )
    ]


def _step(batch: Sequence[Request], done: int, *, total: int, progress: Progress | None) -> Any:
    """What the pipeline calls after each step: stops at the first value that is no number, and says how far it is."""

    def step(pipe: Any, number: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        _check_numbers(values["latents"], batch, "the model")
        if progress is not None:
            progress(done + len(batch) * (number + 1) / pipe.num_timesteps, total)
        return values

    return step


def _check_numbers(values: torch.Tensor, batch: Sequence[Request], source: str) -> None:
    broken = (~torch.isfinite(values)).flatten(1).any(dim=1).tolist()
    if any(broken):
        request = batch[broken.index(True)]
        raise CheckpointError(
            f"{source} gives values that are no numbers for prompt '{request.prompt}' with seed {request.seed};"
            " compute in float32 or bfloat16, or train with a lower learning rate"
        )


@contextmanager
def _undisturbed(pipe: Any) -> Iterator[None]:
    """Evaluation mode, a scheduler of its own and no bar, and everything as it was afterwards."""
    parts = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    modes = {module: module.training for part in parts for module in part.modules()}
    scheduler, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    cards = [pipe.device] if pipe.device.type == "cuda" else []
    try:
        for part in parts:
            part.eval()
        pipe.scheduler = copy.deepcopy(scheduler)
        pipe.set_progress_bar_config(disable=True)
        with torch.random.fork_rng(cards):
            yield
    finally:
        pipe.set_progress_bar_config(**bar)
        pipe.scheduler = scheduler
        for module, is_training in modes.items():
            module.training = is_training
