"""Writes the averaged weights of a run as a pipeline folder in half precision, small enough to ship."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import nn

from making.emoji_parts import Shape, networks, pipeline, tokenizer
from moslora.emoji import sprites

# All package data of `moslora.emoji` together, in bytes.
LIMIT = 24_000_000
_LICENSE = Path(__file__).with_name("taesd_license.txt")
_CREDITS = """# Credits

A tiny text-to-image pipeline, trained from nothing by `python -m making.emoji_sdxl` of this project's repository:
{step:,} steps of {batch} pictures, seed {seed}, {minutes:.0f} minutes on this machine: {machine}.
`training.json` has every setting, `measures.json` what it can do. It learned from scenes of emoji by the artists of
Noto (Apache License 2.0), credited in full beside the sheets of sprites, without these concepts:
{subjects}.

`vae/` holds TAESDXL (<https://github.com/madebyollin/taesd>), in half precision, otherwise unchanged; its licence is
`vae/LICENSE.txt`.
"""


def export(run: Path, folder: Path, *, coder: AutoencoderTiny) -> None:
    """Write the pipeline of a run's checkpoint to a folder, with its credits and `training.json` beside its parts."""
    kept = torch.load(run / "checkpoint.pt", weights_only=True)
    parts = averaged(kept)
    whole = pipeline(parts, tokenizer(), coder)
    whole.to(torch.float16)
    whole.save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    _forget(folder / "vae" / "config.json", "block_out_channels")
    shutil.copyfile(_LICENSE, folder / "vae" / "LICENSE.txt")
    (folder / "CREDITS.md").write_text(_credits(kept), encoding="utf-8")
    told = {
        "step": kept["step"],
        "seconds": round(kept["seconds"]),
        "machine": kept["machine"],
        "settings": kept["settings"],
    }
    (folder / "training.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LIMIT:
        raise SystemExit(f"the pipeline has {size:,} bytes; package data may have {LIMIT:,}: use a smaller shape")


def _credits(kept: dict) -> str:
    return _CREDITS.format(
        step=kept["step"],
        batch=kept["settings"]["batch_size"],
        seed=kept["settings"]["seed"],
        minutes=kept["seconds"] / 60,
        machine=kept["machine"],
        subjects=", ".join(sprites.SUBJECTS),
    )


def averaged(kept: dict) -> nn.ModuleDict:
    """The networks of a checkpoint with their averaged weights."""
    shape = Shape(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in kept["settings"]["shape"].items()
        }
    )
    parts = networks(shape, tokenizer())
    parts.load_state_dict(kept["average"])
    return parts.eval()


def _forget(path: Path, key: str) -> None:
    """Drop a setting that the part sets for itself, and says so in a warning whenever it reads it."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop(key, None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
