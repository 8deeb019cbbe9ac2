"""Tiny pipelines of random weights, written once and loaded anew for each test."""

from collections.abc import Callable
from typing import Any

import pytest
from diffusers import DiffusionPipeline

from tests.diffusion import tiny_sd3, tiny_sd15, tiny_sdxl

KINDS = {"sdxl": tiny_sdxl, "sd15": tiny_sd15, "sd3": tiny_sd3}


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A tiny pipeline of a kind: `sdxl`, `sd15` or `sd3`; arguments as of `from_pretrained`."""
    folder = tmp_path_factory.mktemp("pipelines")

    def load(kind: str, **options: Any) -> Any:
        if not (folder / kind).exists():
            KINDS[kind](folder / kind)
        return DiffusionPipeline.from_pretrained(folder / kind, **options)

    return load
