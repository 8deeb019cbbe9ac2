"""Trains the tiny text-to-image pipeline that `moslora.emoji` ships, from nothing, on scenes of emoji.

    python -m making.emoji_sdxl --out RUN --autoencoder TAESDXL --device cuda      train; again with --resume to go on
    python -m making.emoji_sdxl --out RUN --autoencoder TAESDXL --export FOLDER    the pipeline so far, half precision
    python -m making.emoji_sdxl --measure FOLDER                                   is it right; adds figures and a sheet

Minutes on a GPU; on a CPU one thread for some hours. A run's folder keeps `latents/` (drawn once), `checkpoint.pt`
(every three minutes and at the end) and `log.jsonl`. The same seed gives the same order of data, however often it is
interrupted. TAESDXL is the folder with `taesdxl_encoder.safetensors` and `taesdxl_decoder.safetensors`
(https://github.com/madebyollin/taesd, MIT).
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from making.emoji_export import export
from making.emoji_measure import measure, save
from making.emoji_scenes import autoencoder, latents
from making.emoji_training import Settings, Training

# Settings that the command line can choose.
_CHOSEN = [each for each in dataclasses.fields(Settings) if isinstance(each.default, int | float)]


def main() -> None:
    """Train, export or measure."""
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    options = _parser().parse_args()
    if options.measure:
        pipeline = StableDiffusionXLPipeline.from_pretrained(
            options.measure, torch_dtype=torch.float32, add_watermarker=False
        )
        save(options.measure, *measure(pipeline))
    elif options.export:
        export(options.out, options.export, coder=autoencoder(options.autoencoder))
    else:
        train(options)


def train(options: argparse.Namespace) -> None:
    """Begin a run in a folder without a checkpoint, or go on with one."""
    settings = Settings(**{each.name: getattr(options, each.name) for each in _CHOSEN})
    options.out.mkdir(parents=True, exist_ok=True)
    coder = autoencoder(options.autoencoder).to(options.device)
    drawn = functools.partial(latents, seed=settings.seed, folder=options.out / "latents", coder=coder)
    training = Training(options.out, settings=settings, latents=drawn, device=options.device)
    if options.resume:
        training.resume()
    elif training.checkpoint.exists():
        raise SystemExit(f"{training.checkpoint} exists; go on with --resume or choose another --out")
    training.run(minutes=options.minutes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the run")
    parser.add_argument("--autoencoder", type=Path, help="folder with TAESDXL's two files")
    parser.add_argument("--minutes", type=float, default=60, help="how long to train now")
    parser.add_argument("--resume", action="store_true", help="go on from the run's checkpoint")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    for each in _CHOSEN:
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the run's pipeline there instead")
    parser.add_argument("--measure", type=Path, metavar="FOLDER", help="measure the pipeline there instead")
    return parser


if __name__ == "__main__":
    main()
