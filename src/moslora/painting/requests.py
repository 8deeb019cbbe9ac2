"""What is to be drawn. Imports no torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from moslora.errors import ConfigError

SEED_LIMIT = 2**63  # of torch's generators


@dataclass(frozen=True)
class Request:
    """One picture to draw: everything that decides it but the model.

    `seed` gives the noise, 0 to 2^63 - 1; `steps` is how often the model is asked; `guidance` is the scale of
    classifier-free guidance. `width` and `height` are pixels; without them the pipeline's own size is drawn. `number`
    is the place of the prompt in its list, from 0, which files are named by. Raises ConfigError for other values.
    """

    prompt: str
    seed: int
    negative_prompt: str = ""
    steps: int = 30
    guidance: float = 7.5
    width: int | None = None
    height: int | None = None
    number: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < SEED_LIMIT:
            raise ConfigError(f"the seed of a picture is {self.seed}; give a whole number from 0 to 2^63 - 1")
        if self.steps < 1:
            raise ConfigError(f"a picture cannot be drawn in {self.steps} steps; give at least 1")
        if self.number < 0:
            raise ConfigError(f"the number of a prompt is {self.number}; count from 0")
        for name in ("width", "height"):
            pixels = getattr(self, name)
            if pixels is not None and (pixels < 8 or pixels % 8):
                raise ConfigError(f"the {name} of a picture is {pixels}; give a multiple of 8 pixels")

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What the pictures of one batch must have in common."""
        return self.steps, self.guidance, self.width, self.height, bool(self.negative_prompt)


class Picture(Protocol):
    """A picture that was drawn, just now or in a file."""

    @property
    def request(self) -> Request:
        """What was asked for."""
        ...

    @property
    def image(self) -> Image.Image:
        """The picture in RGB."""
        ...

    @property
    def is_withheld(self) -> bool:
        """Whether a safety checker replaced it by a black one."""
        ...


def requests_for(
    prompts: Sequence[str],
    seeds: Iterable[int],
    *,
    negative_prompt: str = "",
    steps: int = 30,
    guidance: float = 7.5,
    width: int | None = None,
    height: int | None = None,
) -> list[Request]:
    """Every prompt with every seed, prompt by prompt. Raises ConfigError without prompts or seeds, or for equal seeds.

    The same seed starts every prompt, and every method, from the same noise.
    """
    seeds = list(seeds)
    if not prompts or not seeds:
        raise ConfigError(f"{len(prompts)} prompts and {len(seeds)} seeds make no pictures; give at least one of each")
    if len(set(seeds)) < len(seeds):
        listed = ", ".join(map(str, seeds))
        raise ConfigError(f"the seeds {listed} are not all different, and equal ones draw equal pictures; change one")
    return [
        Request(prompt, seed, negative_prompt, steps, guidance, width, height, number)
        for number, prompt in enumerate(prompts)
        for seed in seeds
    ]
