"""How pictures are mixed with noise in training, and what the model is then to predict.

Everything is a function of a picture's latents, its noise and one number between 0 and 1 that says how far along the
schedule it is: the same for every method, and for every division into batches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from moslora.errors import ConfigError


class Schedule(Protocol):
    """What a scheduler of diffusers means for training."""

    def timestep(self, position: float) -> float:
        """The timestep that the denoiser is given at a position in 0 … 1, drawn uniformly in training."""
        ...

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """The latents (channels, height, width) with the noise of a timestep."""
        ...

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """What the denoiser is to predict from them."""
        ...

    def weight(self, timestep: float, *, min_snr_gamma: float | None) -> float:
        """What the loss at a timestep counts; 1 without min-SNR weighting."""
        ...


@dataclass(frozen=True)
class Diffusion:
    """Steps of a diffusion, of which the noise, the velocity or the picture itself is predicted.

    `kept` is the share of the picture's variance that is left at each step (`alphas_cumprod`).
    """

    kept: torch.Tensor
    prediction: str

    def timestep(self, position: float) -> float:
        """A whole step."""
        return float(min(int(position * len(self.kept)), len(self.kept) - 1))

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """The latents with noise."""
        signal, share = self._shares(timestep)
        return signal * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """The noise, the velocity, or the latents."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return latents
        signal, share = self._shares(timestep)
        return signal * noise - share * latents

    def weight(self, timestep: float, *, min_snr_gamma: float | None) -> float:
        """Min-SNR weighting (Hang et al. 2023): the loss of the picture counts at most `min_snr_gamma`."""
        if min_snr_gamma is None:
            return 1.0
        signal, share = self._shares(timestep)
        ratio = signal**2 / share**2
        counted = min(ratio, min_snr_gamma)
        return {"epsilon": counted / ratio, "v_prediction": counted / (ratio + 1), "sample": counted}[self.prediction]

    def _shares(self, timestep: float) -> tuple[float, float]:
        kept = self.kept[int(timestep)].item()
        return math.sqrt(kept), math.sqrt(1 - kept)


@dataclass(frozen=True)
class Flow:
    """A straight flow from the picture to noise (rectified flow); positions are drawn more often from the middle.

    `timesteps` and `sigmas` are a scheduler's own, from noise to picture. Of a logit-normal density with mean 0 and
    variance 1, as the flow models themselves were trained with (Esser et al. 2024, section 3.1).
    """

    timesteps: torch.Tensor
    sigmas: torch.Tensor

    def timestep(self, position: float) -> float:
        """One of the scheduler's timesteps."""
        normal = math.sqrt(2) * torch.erfinv(torch.tensor(2 * position - 1, dtype=torch.float64))
        place = int(len(self.timesteps) * torch.sigmoid(normal).item())
        return self.timesteps[min(place, len(self.timesteps) - 1)].item()

    def noisy(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """A point on the straight line."""
        sigma = self._sigma(timestep)
        return (1 - sigma) * latents + sigma * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timestep: float) -> torch.Tensor:
        """The direction to the noise."""
        return noise - latents

    def weight(self, timestep: float, *, min_snr_gamma: float | None) -> float:
        """All count alike. Raises ConfigError for min-SNR weighting, which a flow has no use for."""
        if min_snr_gamma is not None:
            raise ConfigError(
                f"training.min_snr_gamma {min_snr_gamma} is for diffusion models, and this is a flow model: leave it"
                " out"
            )
        return 1.0

    def _sigma(self, timestep: float) -> float:
        return self.sigmas[int((self.timesteps - timestep).abs().argmin())].item()


def schedule_of(scheduler: Any) -> Schedule:
    """What a pipeline's scheduler means for training. Raises ConfigError for one not known."""
    from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

    config = scheduler.config
    if "FlowMatch" in type(scheduler).__name__:
        flow: Any = FlowMatchEulerDiscreteScheduler.from_config(config)
        return Flow(flow.timesteps.double(), flow.sigmas.double())
    diffusion: Any = DDPMScheduler.from_config(config)
    prediction = diffusion.config["prediction_type"]
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise ConfigError(
            f"the model's scheduler predicts '{prediction}' (allowed: epsilon, v_prediction, sample, and flows):"
            " choose another model"
        )
    return Diffusion(diffusion.alphas_cumprod.double(), prediction)


Draw = Callable[[int], torch.Generator]


def draws_of(seed: int) -> Draw:
    """The random numbers of the n-th visit to a picture, from the seed and n alone."""

    def draw(visit: int) -> torch.Generator:
        return torch.Generator().manual_seed((seed * 2**31 + visit * 2 + 1) % 2**63)

    return draw
