"""The features of a frozen vision tower, computed once and kept as files, so that training need not run the tower.

A picture's file is named after its content and lies in a folder named after all else that its features depend on:
the tower, how pictures are processed, the layers that are read, and the precision. Shapes: B pictures, L layers, N
features a picture, C channels.
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from moslora.adapter.twin import base_of, replace
from moslora.data.images import Picture, content_hash, open_image
from moslora.errors import OutputError
from moslora.files import write_atomically
from moslora.training.vision_language import Placed, pixels

FEATURES, CHECK = "features", "crc32"
NOT_DECIDING = ("transformers_version", "_name_or_path", "name_or_path")  # of a tower's configuration
SPARE_BYTES = 2**30  # for the run beside the features
Item = TypeVar("Item")


class CachedTower(nn.Module):
    """Stands in for a vision tower: what it is given as pixels are the features that the tower gave."""

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = tuple(layers)

    def forward(self, pixel_values: torch.Tensor, **_options: Any) -> BaseModelOutputWithPooling:
        """Features (B, L, N, C) as hidden states (B, N, C), by the numbers of the layers."""
        states: Any = dict(zip(self.layers, pixel_values.unbind(dim=1), strict=True))
        return BaseModelOutputWithPooling(hidden_states=states)


class Features:
    """The features of pictures: read where they are kept, else computed and kept.

    `layers` are the numbers of the hidden states that are read, `autocast` is the dtype that the model computes in
    under autocast, None without it, and `about` whatever else decides how a picture becomes pixels.
    """

    def __init__(
        self,
        tower: Any,
        processor: Any,
        *,
        layers: Sequence[int],
        autocast: torch.dtype | None,
        about: Mapping[str, Any],
        cache: Path,
    ) -> None:
        self.tower, self.processor, self.layers, self.autocast = tower.eval(), processor, tuple(layers), autocast
        self.folder = cache / features_key(tower, [about, self.layers, str(autocast)])
        self._files: dict[Picture, Path] = {}

    def __call__(self, shown: Sequence[Placed]) -> dict[str, torch.Tensor]:
        """What a model whose tower is a `CachedTower` reads of pictures: features (B, L, N, C); nothing of none."""
        return {"pixel_values": torch.stack([self._of(one) for one in shown])} if shown else {}

    def fill(self, shown: Sequence[Placed], *, batch_size: int, progress: bool) -> None:
        """Compute the features that are not kept yet; each of several processes computes its share of them.

        What a killed process had computed stays. Raises DataError for a picture that cannot be read, and OutputError
        for a disk that is too full.
        """
        state = PartialState()
        known = {self._file(one): one for one in _with_bar(shown, "reading pictures", progress=progress)}
        share = [*known.items()][state.process_index :: state.num_processes]  # the same, whoever has begun
        missing = [one for file, one in share if not file.is_file()]
        batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        for number, batch in enumerate(_with_bar(batches, "computing features", progress=progress)):
            size_bytes = sum(one.nbytes for one in self._compute(batch))
            if number == 0:
                self._check_room(size_bytes * len(batches) * state.num_processes)
        state.wait_for_everyone()

    def _of(self, one: Placed) -> torch.Tensor:
        kept = _read(self._file(one))
        return self._compute([one])[0] if kept is None else kept

    def _file(self, one: Placed) -> Path:
        image, place = one
        if image not in self._files:
            name = content_hash(image, place=place)
            self._files[image] = self.folder / name[:2] / f"{name}.safetensors"
        return self._files[image]

    @torch.no_grad()
    def _compute(self, shown: Sequence[Placed]) -> list[torch.Tensor]:
        """The features (L, N, C) of each picture, on the CPU, which are written too."""
        opened = [open_image(image, place=place) for image, place in shown]
        seen = pixels(opened, self.processor)["pixel_values"]
        device = next(self.tower.parameters()).device
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            states = self.tower(seen.to(device), output_hidden_states=True).hidden_states
        found = [*torch.stack([states[layer] for layer in self.layers], dim=1).cpu()]
        for one, features_LNC in zip(shown, found, strict=True):
            _write(self._file(one), features_LNC.contiguous())
        return found

    def _check_room(self, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self.folder).free
        if free_bytes < needed_bytes + SPARE_BYTES:
            raise OutputError(
                f"data.cache_features: the features need {needed_bytes / 1e9:.1f} GB and the disk of {self.folder} has"
                f" {free_bytes / 1e9:.1f} GB free: set MOSLORA_CACHE to a folder with room, or cache_features to false"
            )


@contextmanager
def cached_tower(model: nn.Module, prefix: str, features: Features) -> Iterator[None]:
    """The model reads features where it read pixels; its tower, the module `prefix` of the base, comes back after."""
    base, tower = base_of(model), features.tower
    replace(base, prefix, CachedTower(features.layers))
    try:
        yield
    finally:
        replace(base, prefix, tower)


def features_key(tower: Any, about: Any) -> str:
    """A name for all that features depend on but the picture: a tower's weights and configuration, and `about`."""
    config = {name: value for name, value in tower.config.to_dict().items() if name not in NOT_DECIDING}
    digest = hashlib.sha256(json.dumps([config, about], sort_keys=True, default=str).encode())
    for name, tensor in sorted(tower.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _write(file: Path, features: torch.Tensor) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"data.cache_features: cannot write to {file.parent} ({error.strerror}): set MOSLORA_CACHE to another"
            " folder, or cache_features to false"
        ) from error
    write_atomically(file, save({FEATURES: features}, metadata={CHECK: _checksum(features)}))


def _read(file: Path) -> torch.Tensor | None:
    """The features in a file; None where it is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            features, check = opened.get_tensor(FEATURES), (opened.metadata() or {}).get(CHECK)
    except (OSError, SafetensorError):
        return None
    return features if check == _checksum(features) else None


def _with_bar(items: Sequence[Item], what: str, *, progress: bool) -> Iterable[Item]:
    return track(items, what, console=Console(stderr=True), disable=not progress or not items)


def _checksum(tensor: torch.Tensor) -> str:
    return f"{zlib.crc32(_bytes(tensor)):08x}"


def _bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
