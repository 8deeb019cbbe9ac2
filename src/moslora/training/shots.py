"""From pictures with captions to batches: latents, noise, targets, and what the model is told of each picture.

All that chance decides of a visit (the crop, the timestep, the noise) follows from the run's seed and the visit's
number, so it is the same for every method, for every division into batches, and after an interruption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from moslora.data.cropping import Cut, Shape, cut_for, cut_out, told_sizes
from moslora.data.images import open_image
from moslora.data.photos import Photo
from moslora.errors import DataError
from moslora.training.diffusion import TextToImage
from moslora.training.layouts import Condition
from moslora.training.noise import draws_of
from moslora.training.visits import Visit, order

VALIDATION_SEED = 2**31 - 1  # of the noise that validation pictures are tried with, whatever the run's seed


@dataclass(frozen=True)
class Shot:
    """A picture as it is trained on: the shape it is cut to, and its caption for each text encoder.

    A validation picture has the `position` in 0 … 1 of the schedule at which it is tried, and a `number` of its own.
    """

    photo: Photo
    shape: Shape
    ids: Mapping[str, Sequence[int]]
    position: float | None = None
    number: int = 0


class Seen(NamedTuple):
    """One picture of a batch: its cut, its place on the schedule, where its noise comes from, what its loss counts."""

    shot: Shot
    cut: Cut
    position: float
    generator: torch.Generator
    weight: float


class Encoder:
    """Latents of pictures as the denoiser sees them, computed once each where the cut is always the same."""

    def __init__(self, model: TextToImage, *, keeps: bool) -> None:
        self.model, self.keeps = model, keeps
        self.known: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor | None]] = {}

    def latents(self, shot: Shot, cut: Cut, *, generator: torch.Generator) -> torch.Tensor:
        """The latents (channels, height, width) on the CPU, drawn where the autoencoder gives a distribution.

        Raises DataError naming the file if they are not finite.
        """
        key = (shot.photo.picture, shot.shape, cut)
        mean, spread = self.known.get(key) or self._encoded(shot, cut)
        if self.keeps:
            self.known[key] = (mean, spread)
        encoded = mean if spread is None else mean + spread * torch.randn(mean.shape, generator=generator)
        return self.model.layout.latents_from(encoded, self.model.autoencoder.config)

    @torch.no_grad()
    def _encoded(self, shot: Shot, cut: Cut) -> tuple[torch.Tensor, torch.Tensor | None]:
        autoencoder = self.model.autoencoder
        image = open_image(shot.photo.picture, place=shot.photo.name)
        weight = next(autoencoder.parameters())
        pixels = cut_out(image, cut, shot.shape)[None].to(weight.device, weight.dtype)
        found = autoencoder.encode(pixels)
        tensors = [found.latents] if hasattr(found, "latents") else [found.latent_dist.mean, found.latent_dist.std]
        first, *rest = (tensor[0].float().cpu() for tensor in tensors)
        if not first.isfinite().all():
            raise DataError(
                f"{shot.photo.name}: the autoencoder gives latents that are not finite: set model.autoencoder_dtype to"
                " float32, or leave the picture out"
            )
        return first, rest[0] if rest else None


class Batches:
    """Makes batches of visits to shots, and of validation shots.

    `beside` are the class's pictures for prior preservation, one of which is seen at each visit. With `conditions`,
    which hold what the text encoders made of each caption, these are not asked again. `is_random` crops and `may_flip`
    are drawn at each visit.
    """

    def __init__(
        self,
        model: TextToImage,
        encoder: Encoder,
        *,
        seed: int,
        beside: Sequence[Shot] = (),
        prior_weight: float = 1.0,
        min_snr_gamma: float | None = None,
        conditions: Mapping[tuple[Any, ...], Condition] | None = None,
        is_random: bool = False,
        may_flip: bool = False,
    ) -> None:
        self.model, self.encoder, self.seed = model, encoder, seed
        self.beside, self.prior_weight, self.min_snr_gamma = beside, prior_weight, min_snr_gamma
        self.conditions, self.chance = conditions, {"is_random": is_random, "may_flip": may_flip}

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        """The arguments of a forward pass."""
        visits = [row if isinstance(row, Visit) else Visit(row, row.number) for row in rows]
        seen = [self._seen(visit) for visit in visits]
        if self.beside and not self._is_validation(rows):
            seen += [self._beside(visit) for visit in visits]
        return self._batch(seen, each=1 / len(visits))

    def _is_validation(self, rows: Sequence[Any]) -> bool:
        return not isinstance(rows[0], Visit)

    def _seen(self, visit: Visit) -> Seen:
        shot: Shot = visit.row
        if shot.position is not None:
            generator = draws_of(VALIDATION_SEED)(shot.number)
            return Seen(shot, cut_for(shot.photo.header, shot.shape), shot.position, generator, 1.0)
        generator = draws_of(self.seed)(2 * visit.number)
        return self._drawn(shot, generator, weight=1.0)

    def _beside(self, visit: Visit) -> Seen:
        passes, place = divmod(visit.number, len(self.beside))
        shot = self.beside[order(len(self.beside), seed=self.seed + 1, passes=passes)[place]]
        return self._drawn(shot, draws_of(self.seed)(2 * visit.number + 1), weight=self.prior_weight)

    def _drawn(self, shot: Shot, generator: torch.Generator, *, weight: float) -> Seen:
        cut = cut_for(shot.photo.header, shot.shape, generator=generator, **self.chance)
        return Seen(shot, cut, torch.rand((), generator=generator).item(), generator, weight)

    def _batch(self, seen: Sequence[Seen], *, each: float) -> dict[str, Any]:
        schedule: Any = self.model.schedule
        noisy, targets, timesteps, weights = [], [], [], []
        for one in seen:
            latents = self.encoder.latents(one.shot, one.cut, generator=one.generator)
            noise = torch.randn(latents.shape, generator=one.generator)
            timestep = schedule.timestep(one.position)
            noisy.append(schedule.noisy(latents, noise, timestep))
            targets.append(schedule.target(latents, noise, timestep))
            timesteps.append(timestep)
            weights.append(each * one.weight * schedule.weight(timestep, min_snr_gamma=self.min_snr_gamma))
        found = {"noisy": noisy, "targets": targets, "timesteps": torch.tensor(timesteps)}
        if self.model.layout.has_sizes:
            sizes = [told_sizes(one.shot.photo.header, one.cut, one.shot.shape) for one in seen]
            found["sizes"] = torch.tensor(sizes)
        return {**found, "weights": torch.tensor(weights), **self._told([one.shot for one in seen])}

    def _told(self, shots: Sequence[Shot]) -> dict[str, Any]:
        """What the model is told of the pictures: conditions that were kept, or token ids."""
        if self.conditions is None:
            return {"ids": {name: torch.tensor([[*shot.ids[name]] for shot in shots]) for name in shots[0].ids}}
        own = [self.conditions[caption_key(shot.ids)] for shot in shots]
        return {"condition": {name: torch.stack([one[name] for one in own]) for name in own[0]}}


def caption_key(ids: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
    """A caption's token ids, to find what was made of it."""
    return tuple(tuple(own) for own in ids.values())


@torch.no_grad()
def kept_conditions(model: TextToImage, shots: Sequence[Shot]) -> dict[tuple[Any, ...], Condition]:
    """What the text encoders make of every caption, on the CPU."""
    device, found = next(model.denoiser.parameters()).device, {}
    for shot in shots:
        key = caption_key(shot.ids)
        if key not in found:
            ids = {name: torch.tensor([[*own]], device=device) for name, own in shot.ids.items()}
            found[key] = {name: tensor[0].cpu() for name, tensor in model.encode(ids).items()}
    return found
