"""From a pipeline's latents to pictures, in the dtype of its autoencoder.

The pipelines' own last step takes latents and autoencoder to be of one dtype. Here the autoencoder may be in float32
beside a model in 16 bits, which SDXL's needs: it overflows in float16.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image


@dataclass(frozen=True)
class Decoded:
    """Pictures as the autoencoder gives them (N, 3, H, W), -1 to 1, and those that a safety checker made black."""

    values: torch.Tensor
    withheld: list[bool]

    def images(self) -> list[Image.Image]:
        """The pictures in RGB, 8 bits a channel."""
        shares = torch.where(self._is_black, 0.0, (self.values.float() / 2 + 0.5).clamp(0, 1))
        bytes_NHWC = (shares * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(picture) for picture in bytes_NHWC]

    @property
    def _is_black(self) -> torch.Tensor:
        return torch.tensor(self.withheld, device=self.values.device)[:, None, None, None]


@torch.no_grad()
def decode(pipe: Any, latents: torch.Tensor) -> Decoded:
    """The pictures of latents (N, C, H, W) of a pipeline with an autoencoder of still pictures.

    Its safety checker and its watermark are applied where it has them.
    """
    from diffusers.utils.torch_utils import get_module_execution_device

    vae = pipe.vae
    with _wide_enough(vae):
        scaled = _unscaled(vae.config, latents.to(get_module_execution_device(vae), vae.dtype))
        values = vae.decode(scaled, return_dict=False)[0]
    if getattr(pipe, "watermark", None) is not None:
        values = pipe.watermark.apply_watermark(values)
    return Decoded(values, _withheld(pipe, values))


def _unscaled(config: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents of about unit variance as the autoencoder has them."""
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        spread = torch.tensor(std).view(1, -1, 1, 1).to(latents)
        return latents * spread / config.scaling_factor + torch.tensor(mean).view(1, -1, 1, 1).to(latents)
    return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)


def _withheld(pipe: Any, values: torch.Tensor) -> list[bool]:
    if getattr(pipe, "safety_checker", None) is None:
        return [False] * len(values)
    _, found = pipe.run_safety_checker(values.clone(), values.device, pipe.dtype)
    return [bool(one) for one in found]


@contextmanager
def _wide_enough(vae: Any) -> Iterator[None]:
    """An autoencoder that overflows in float16 in float32, for as long as it decodes."""
    is_narrow = vae.dtype == torch.float16 and getattr(vae.config, "force_upcast", False)
    try:
        if is_narrow:
            vae.to(torch.float32)
        yield
    finally:
        if is_narrow:
            vae.to(torch.float16)
