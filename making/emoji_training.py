"""The training of the base model: resumable after any step, with a JSON line every hundred steps."""

import contextlib
import dataclasses
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from making.emoji_parts import MAX_TOKENS, TIME_IDS, Shape, embedded, networks, scheduler, tokenizer
from making.emoji_scenes import random_prompt, random_scene, trained_names
from making.emoji_words import school
from moslora.emoji.scenes import BACKGROUNDS, Scene, places_and_sizes
from moslora.runs.environment import describe_machine

_LOG_EVERY, _VALIDATE_EVERY, _SAVE_SECONDS = 100, 500, 180
# The steps of the noise schedule, and the numbers of the validation's scenes. Training may meet the same scene under
# another number, never the same times and noise.
_TIMES, _VALIDATION = 1000, range(10**6, 10**6 + 64)


@dataclass(frozen=True)
class Settings:
    """What a run is: the same settings and seed give the same weights on the same machine."""

    seed: int = 0
    steps: int = 1_800
    batch_size: int = 256
    learning_rate: float = 1.5e-3
    # Steps in which the text encoders learn what prompts say, before anything is drawn.
    words_steps: int = 1_500
    # The text encoders' share of the learning rate. At 1 they soon told backgrounds apart and nothing else: pooled
    # vectors of prompts that differ in place or concept alone were 0.3 and 2 % apart, at first 12 and 20 %.
    text_share: float = 0.1
    # How far times of the schedule are moved towards noise (1: not at all). A thing's place can be seen in all but
    # the noisiest tenth, and only there the prompt is needed for it.
    time_shift: float = 3.0
    warm_up: int = 200
    # Share of the steps, at the end, in which the learning rate falls to zero.
    decay: float = 0.3
    weight_decay: float = 0.01
    ema: float = 0.999
    unconditional: float = 0.1
    # Different scenes that are learned from.
    scenes: int = 30_000
    shape: Shape = dataclasses.field(default_factory=Shape)

    def times(self, shares: torch.Tensor) -> torch.Tensor:
        """Times of the schedule, int64, at these shares (0 to below 1) of what training draws."""
        return (_TIMES * self.time_shift * shares / (1 + (self.time_shift - 1) * shares)).long()

    def rate(self, step: int) -> float:
        """Learning rate of a step: a short rise, a plateau, a fall to zero."""
        left = (self.steps - step) / max(1, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)


class Training:
    """Networks, optimizer, averaged weights and the step they have reached, kept in one file of `folder`."""

    def __init__(
        self, folder: Path, *, settings: Settings, latents: Callable[[range], torch.Tensor], device: str = "cpu"
    ) -> None:
        """`latents` maps numbers of scenes, a range, to their latents, (scenes, 4, 16, 16)."""
        self.folder, self.settings, self._latents, self._device = folder, settings, latents, torch.device(device)
        self.vocabulary = tokenizer()
        torch.manual_seed(settings.seed)
        self.parts = networks(settings.shape, self.vocabulary).to(device)
        # The first encoder's last layer feeds nothing, as in SDXL; it stays what it was.
        self.average = {name: value.clone() for name, value in self.parts.state_dict().items()}
        shares = {"unet": 1.0, "text_encoder": settings.text_share, "text_encoder_2": settings.text_share}
        self.optimizer = torch.optim.AdamW(
            [{"params": list(self.parts[name].parameters()), "share": share} for name, share in shares.items()],
            settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.noising = scheduler()
        self.step, self.seconds = 0, 0.0
        self._pool = torch.empty(0)
        self._losses: list[float] = []

    @property
    def checkpoint(self) -> Path:
        """The file that everything is kept in."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the checkpoint; other settings than its own are an error, but for the number of steps."""
        kept = torch.load(self.checkpoint, map_location=self._device, weights_only=True)
        mine = {**dataclasses.asdict(self.settings), "steps": kept["settings"]["steps"]}
        if json.loads(json.dumps(mine)) != kept["settings"]:
            raise SystemExit(f"the checkpoint's settings are {kept['settings']}, not {mine}; use another folder")
        self.parts.load_state_dict(kept["parts"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.average, self.step, self.seconds, self._losses = (
            kept[name] for name in ("average", "step", "seconds", "losses")
        )

    def save(self) -> None:
        """Write the checkpoint, or leave the one before."""
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "settings": json.loads(json.dumps(dataclasses.asdict(self.settings))),
                "parts": self.parts.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average,
                "step": self.step,
                "seconds": self.seconds,
                "machine": processor(self._device),
                "losses": [float(loss) for loss in self._losses],
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def run(self, *, minutes: float, steps: int | None = None) -> None:
        """Train until the time, these steps or all steps are over, or until a signal asks to stop; then save."""
        last = self.settings.steps if steps is None else min(self.settings.steps, self.step + steps)
        began = saved = time.monotonic()
        if not self.step:
            self._school()
            self.save()
        with _stop_signals() as stop:
            while self.step < last and not stop and time.monotonic() - began < 60 * minutes:
                self._one_step()
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
            self.save()

    def _school(self) -> None:
        """Teach the text encoders what prompts say."""
        began = time.monotonic()
        if self.settings.words_steps:
            read = school(self.parts, self.vocabulary, seed=self.settings.seed, steps=self.settings.words_steps)
            print(f"text encoders read {read:.1%} of what prompts tell", file=sys.stderr, flush=True)
        self.average = {name: value.clone() for name, value in self.parts.state_dict().items()}
        self.seconds += time.monotonic() - began

    def _one_step(self) -> None:
        began = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step) * group["share"]
        loss = self._loss(*self._batch())
        loss.backward()
        nn.utils.clip_grad_norm_(self.parts.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._update_average()
        self._losses.append(loss.detach())
        self.seconds += time.monotonic() - began
        if self.step % _LOG_EVERY == 0:
            self._log()

    def _batch(self) -> tuple[torch.Tensor, list[str], torch.Tensor, torch.Tensor]:
        """Latents, prompts, times and noise of a step, from the seed and the step alone."""
        if not len(self._pool):
            self._pool = self._latents(range(self.settings.scenes))
        draw = random.Random(f"batch {self.settings.seed} {self.step}")
        chance = torch.Generator().manual_seed(draw.getrandbits(60))
        numbers = [draw.randrange(len(self._pool)) for _ in range(self.settings.batch_size)]
        prompts = [random_prompt(random_scene(number, self.settings.seed), draw) for number in numbers]
        prompts = [None if draw.random() < self.settings.unconditional else prompt for prompt in prompts]
        clean = self._pool[numbers].float()
        times = self.settings.times(torch.rand(len(numbers), generator=chance))
        return clean, prompts, times, torch.randn(clean.shape, generator=chance)

    def _loss(self, clean: torch.Tensor, prompts: list, times: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        clean, times, noise = (tensor.to(self._device) for tensor in (clean, times, noise))
        noisy = self.noising.add_noise(clean, noise, times)
        tokens = self.vocabulary(
            [prompt or "" for prompt in prompts], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
        )
        text, pooled = embedded(self.parts, tokens.input_ids.to(self._device))
        # SDXL's pipelines put zeros where there is no prompt.
        told = torch.tensor([[float(prompt is not None)] for prompt in prompts], device=self._device)
        time_ids = torch.tensor([TIME_IDS] * len(clean), dtype=torch.float32, device=self._device)
        conditions = {"text_embeds": pooled * told, "time_ids": time_ids}
        guess = self.parts["unet"](noisy, times, text * told[..., None], added_cond_kwargs=conditions).sample
        return F.mse_loss(guess, self.noising.get_velocity(clean, noise, times))

    @torch.no_grad()
    def _update_average(self) -> None:
        kept = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        moved = {name: value for name, value in self.parts.state_dict().items() if value.is_floating_point()}
        torch._foreach_lerp_([self.average[name] for name in moved], list(moved.values()), 1 - kept)

    def _log(self) -> None:
        line = {"step": self.step, "loss": round(float(sum(self._losses)) / len(self._losses), 5)}
        line |= {"rate": self.settings.rate(self.step), "seconds": round(self.seconds, 1)}
        if self.step % _VALIDATE_EVERY == 0:
            line["validation_loss"] = round(self.validation_loss(), 5)
            line["told_wrong"] = {
                part: round(self.validation_loss(wrong=part), 5) for part in ("background", "place", "concept")
            }
        self._losses = []
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    @torch.no_grad()
    def validation_loss(self, *, wrong: str | None = None) -> float:
        """Loss on a fixed grid of scenes, times and noise.

        With `wrong`, prompts tell that part of another scene: the loss rises as far as the networks heed it.
        """
        clean = self._latents(_VALIDATION).float()
        chance = torch.Generator().manual_seed(self.settings.seed)
        times = self.settings.times(torch.arange(len(clean)) / len(clean))
        noise = torch.randn(clean.shape, generator=chance)
        scenes = [random_scene(number, self.settings.seed) for number in _VALIDATION]
        prompts = [(_confused(scene, wrong) if wrong else scene).prompt() for scene in scenes]
        return self._loss(clean, prompts, times, noise).item()


def _confused(scene: Scene, part: str) -> Scene:
    """The same scene with one part changed, always in the same way."""
    fitting = [place for place, size in places_and_sizes(scene.count) if size == scene.size]
    values = {"background": list(BACKGROUNDS), "place": fitting, "concept": list(trained_names())}[part]
    return dataclasses.replace(scene, **{part: values[values.index(getattr(scene, part)) - 1]})


def processor(device: torch.device) -> str:
    """The name of what a device is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else describe_machine()["cpu"]


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that is empty until the process is told to end; the signals do what they did before when this is over."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda received, _frame: asked.append(received))
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
