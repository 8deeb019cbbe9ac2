"""What is drawn for a subject's run: which pictures, with or without the adapter, and where they are kept."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from moslora.adapter.twin import base_of
from moslora.data.cropping import as_tensor
from moslora.data.images import encoded, open_image
from moslora.data.photos import Photo
from moslora.files import write_atomically
from moslora.painting.drawing import Drawn, draw
from moslora.painting.png import write_picture
from moslora.painting.reaching import check_reaches
from moslora.painting.requests import Request
from moslora.training.diffusion import TextToImage

PHOTOS = "photos"
THUMBNAIL = 256  # pixels across, at most


@dataclass
class Pictures:
    """Pictures drawn with a model, each once, by when they were asked for and by their requests.

    The first time that pictures are drawn with an adapter, one is drawn without it too: an adapter that changes nothing
    is an error (CheckpointError).
    """

    known: dict[tuple[str, Request], Drawn] = field(default_factory=dict)

    def of(
        self,
        model: Any,
        requests: Sequence[Request],
        *,
        when: str,
        batch_size: int,
        progress: bool,
        is_plain: bool = False,
    ) -> list[Drawn]:
        """The pictures of these requests, in their order; `is_plain` leaves the adapter out."""
        lacking = [one for one in dict.fromkeys(requests) if (when, one) not in self.known]
        if lacking and has_adapter(model) and not is_plain:
            self._check(model, lacking[0])
        with without_adapter(model, is_wanted=is_plain), drawing_bar(progress=progress) as advance:
            for drawn in draw(base_of(model).pipeline(), lacking, batch_size=batch_size, progress=advance):
                self.known[when, drawn.request] = drawn
        return [self.known[when, request] for request in requests]

    def _check(self, model: Any, request: Request) -> None:
        pipe = base_of(model).pipeline()
        with_it = [*draw(pipe, [request])]
        with without_adapter(model):
            check_reaches(with_it, [*draw(pipe, [request])])

    def keep(self, folder: Path, *, photos: Sequence[Photo]) -> None:
        """Write the pictures, those of each time into a folder of its own, and the subject's photos in small."""
        if self.known and photos:
            (folder / PHOTOS).mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(photos if self.known else ()):
            small = open_image(photo.picture, place=photo.name)
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            write_atomically(folder / PHOTOS / f"{number:02d}.png", encoded(small))
        for (when, request), drawn in self.known.items():
            place = folder / when.replace(" ", "-")
            place.mkdir(parents=True, exist_ok=True)
            write_picture(place, drawn.image, request=request, settings={"when": when})


@torch.no_grad()
def seen_by_autoencoder(model: TextToImage, images: Sequence[Image.Image]) -> Iterator[Image.Image]:
    """Pictures as the model could draw them at best: through its autoencoder and back."""
    autoencoder = model.autoencoder
    weight = next(autoencoder.parameters())
    for image in images:
        pixels = as_tensor(image.convert("RGB"))[None]
        encoded = autoencoder.encode(pixels.to(weight.device, weight.dtype))
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        values = autoencoder.decode(latents).sample[0].float().cpu().clamp(-1, 1)
        yield Image.fromarray(((values.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8))


def has_adapter(model: Any) -> bool:
    """Whether a model carries an adapter that can be left out."""
    return hasattr(model, "disable_adapter")


@contextmanager
def without_adapter(model: Any, *, is_wanted: bool = True) -> Iterator[None]:
    """The model as its base is, while the block runs; a model without an adapter is its base."""
    if not (is_wanted and has_adapter(model)):
        yield
        return
    with model.disable_adapter():
        yield


@contextmanager
def drawing_bar(*, progress: bool) -> Iterator[Callable[[float, int], None]]:
    """What shows how many pictures are drawn, on stderr."""
    columns = (TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task("drawing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
