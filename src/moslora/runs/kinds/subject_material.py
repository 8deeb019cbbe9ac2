"""What a subject's run works on: its pictures with their captions, cut to shape, and what is drawn afterwards."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moslora.data.cropping import Shape, buckets, nearest_bucket
from moslora.data.photos import Photo, read_photos
from moslora.errors import ConfigError, DataError
from moslora.runs.material import Material, Sources, split
from moslora.runs.pipelines import part_config, pipeline_class
from moslora.runs.subject_settings import EMOJI, SubjectDataSettings, SubjectModelSettings, SubjectRecipe
from moslora.training.layouts import layout_of, prompt_ids
from moslora.training.shots import Shot


def read_all(data: SubjectDataSettings) -> dict[str, Any]:
    """The pictures of every source. Raises DataError."""
    return {name: _photos(name, data)[: data.limit] for name in data.sources}


def _photos(name: str, data: SubjectDataSettings) -> list[Photo]:
    return photos_from(name, captions=data.captions, prompt=data.prompt)


def photos_from(source: str, *, captions: str | None = None, prompt: str | None = None) -> list[Photo]:
    """The pictures of a folder, or of a subject that comes with the package (`emoji:fox`). Raises DataError."""
    if source.startswith(EMOJI):
        from moslora.runs.kinds.subject_emoji import emoji_photos

        return emoji_photos(source.removeprefix(EMOJI), prompt=prompt)
    return read_photos(source, captions=captions, prompt=prompt)


def material_of(recipe: SubjectRecipe, sources: Sources, tokenizers: Any) -> Material:
    """The pictures as shots; those set apart are tried at several steps of the schedule each."""
    data = recipe.data
    photos: list[Any] = [photo for own in sources.samples.values() for photo in own]
    train, held_out = split([photo.name for photo in photos], data)
    shapes = Shapes(recipe.model, data)
    rows = shots_of([photos[place] for place in train], shapes, tokenizers, recipe.model)
    apart = shots_of([photos[place] for place in held_out], shapes, tokenizers, recipe.model)
    steps = data.validation_steps
    validation = [
        replace(shot, position=(step + 0.5) / steps, number=place * steps + step)
        for place, shot in enumerate(apart)
        for step in range(steps)
    ]
    remarks = [f"pictures of {_sizes(rows)} pixels, {'centred' if data.crop == 'centre' else 'cut at random'}"]
    captions = sorted({shot.photo.caption for shot in rows})
    remarks.append(
        f"captions: {'; '.join(captions[:3])}{f' and {len(captions) - 3} more' if len(captions) > 3 else ''}"
    )
    groups = [shot.photo.name for shot in validation]
    return Material(
        rows, None, validation, sources.test_sets, remarks, validation_groups=[*groups] or None, visits=True
    )


class Shapes:
    """The shape in pixels that each picture is cut to."""

    def __init__(self, model: SubjectModelSettings, data: SubjectDataSettings) -> None:
        layout = layout_of(pipeline_class(model))
        denoiser, autoencoder = part_config(model, layout.denoiser), part_config(model, "vae")
        channels = autoencoder.get("block_out_channels") or autoencoder["encoder_block_out_channels"]
        self.scale = 2 ** (len(channels) - 1)  # pixels a latent, across
        self.resolution = data.resolution or denoiser["sample_size"] * self.scale
        # What halves the latents in the denoiser needs them even.
        self.step = self.scale * 2 ** (len(denoiser.get("block_out_channels") or (0, 0)) - 1)
        if self.resolution % self.step:
            raise ConfigError(
                f"data.resolution {self.resolution} is not a multiple of {self.step}, which this model needs: set it to"
                f" {max(1, round(self.resolution / self.step)) * self.step}"
            )
        self.all = buckets(self.resolution, step=self.step) if data.buckets else [(self.resolution, self.resolution)]

    def of(self, photo: Photo) -> Shape:
        """The nearest shape. Raises DataError for a picture smaller than half of it."""
        shape = nearest_bucket(photo.header, self.all)
        if min(photo.header.width / shape[0], photo.header.height / shape[1]) < 0.25:
            raise DataError(
                f"{photo.name}: {photo.header.width} x {photo.header.height} pixels would be enlarged more than"
                f" fourfold to {shape[0]} x {shape[1]}: use a larger picture, or set data.resolution"
            )
        return shape


def shots_of(photos: Sequence[Photo], shapes: Shapes, tokenizers: Any, model: SubjectModelSettings) -> list[Shot]:
    """Pictures with their shapes and their captions' token ids. Raises DataError for a caption that would be cut."""
    layout = layout_of(pipeline_class(model))
    found = []
    for photo in photos:
        ids = prompt_ids(photo.caption, tokenizers, layout)
        if ids.is_cut:
            raise DataError(
                f"{photo.name}: its caption is longer than the text encoder can read: shorten it"
                f" ('{photo.caption[:60]}…')"
            )
        found.append(Shot(photo, shapes.of(photo), ids.by_encoder))
    return found


def _sizes(shots: Sequence[Shot]) -> str:
    shapes = sorted({shot.shape for shot in shots})
    return ", ".join(f"{width} x {height}" for width, height in shapes[:4]) + (", ..." if len(shapes) > 4 else "")
