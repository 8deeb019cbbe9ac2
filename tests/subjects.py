"""Pictures of a subject and a recipe on a tiny text-to-image model, for the tests of its kind of run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.diffusion import tiny_sd3, tiny_sd15, tiny_sdxl

MAKERS = {"sdxl": tiny_sdxl, "sd15": tiny_sd15, "sd3": tiny_sd3}
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline by its layout, written once."""
    place, made = tmp_path_factory.mktemp("pipelines"), {}

    def folder(layout: str) -> Path:
        if layout not in made:
            made[layout] = MAKERS[layout](place / layout)
        return made[layout]

    return folder


def write_photo(path: Path, *, size: tuple[int, int] = (48, 48), seed: int = 0) -> Path:
    """A picture of noise in large patches."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).resize(size, Image.Resampling.NEAREST).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five pictures."""
    for number in range(5):
        write_photo(tmp_path / "photos" / f"dog_{number}.png", seed=number, size=(48 + 8 * number, 48))
    return tmp_path / "photos"


@pytest.fixture
def write_subject(tmp_path: Path, photos: Path, pipelines: Callable[[str], Path]) -> Callable[..., Path]:
    """Write a recipe for the tiny model; groups given replace single settings, `layout` chooses the model."""

    def write(*, layout: str = "sdxl", name: str = "subject", **changes: Any) -> Path:
        denoiser = "transformer" if layout == "sd3" else "unet"
        parts = {denoiser: {"r": 4, "lora_alpha": 4, "target_modules": ATTENTION}}
        groups: dict[str, Any] = {
            "model": {"path": str(pipelines(layout)), "dtype": "float32"},
            "adapter": {"method": "moslora", "parts": parts},
            "data": {"train": str(photos), "prompt": "a photo of sks dog"},
            "training": {"max_steps": 4, "batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 0},
            "evaluation": {},
        }
        settings = {group: {**own, **changes.get(group, {})} for group, own in groups.items()}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"kind": "subject", **settings}), encoding="utf-8")
        return path

    return write
