"""A text-to-image model as one module that can be trained: its denoiser and its text encoders.

Its forward pass returns the loss, so that the Trainer, adapters and exports treat it as any other model. The
autoencoder, the tokenizers and the scheduler stand beside it and are never trained.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import mse_loss
from transformers.utils import ModelOutput

from moslora.training.layouts import Condition, Layout, layout_of
from moslora.training.noise import Schedule, schedule_of


@dataclass
class DenoisingOutput(ModelOutput):
    """The loss of a batch and of each of its pictures; or, where no target was given, the prediction.

    `prediction` is (pictures, height, width, channels), as what compares models expects features last.
    """

    loss: torch.Tensor | None = None
    losses: torch.Tensor | None = None
    prediction: torch.Tensor | None = None


class Companions:
    """What a text-to-image model is drawn with and does not train; a copy of the model shares it."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self


class TextToImage(nn.Module):
    """The parts of a pipeline of diffusers that may be trained, under its own names for them.

    `parts` are modules such as `unet` and `text_encoder`. On the meta device there is no `pipeline`. The place that the
    model came from is its `path`: under the name that PEFT looks for, PEFT would ask the hub for a `config.json` there.
    """

    supports_gradient_checkpointing: ClassVar[bool] = True

    def __init__(
        self,
        parts: Mapping[str, nn.Module],
        *,
        layout: Layout,
        path: str,
        schedule: Schedule | None = None,
        pipeline: Any = None,
    ) -> None:
        super().__init__()
        for name, module in parts.items():
            self.add_module(name, module)
        self.layout, self.path, self.schedule = layout, path, schedule
        self.companions = Companions(pipeline)

    @property
    def denoiser(self) -> Any:
        """The part that predicts."""
        return getattr(self, self.layout.denoiser)

    @property
    def encoders(self) -> dict[str, Any]:
        """The text encoders that the model has, by name and in order."""
        return {name: getattr(self, name) for name in self.layout.encoders if hasattr(self, name)}

    @property
    def autoencoder(self) -> Any:
        """What turns pictures into latents."""
        return self.companions.pipeline.vae

    def encode(self, ids: Mapping[str, torch.Tensor]) -> Condition:
        """What the denoiser is told of prompts, given as each text encoder's token ids (pictures, tokens)."""
        return self.layout.encode(self.encoders, ids, denoiser=self.denoiser)

    def forward(
        self,
        noisy: Sequence[torch.Tensor],
        timesteps: torch.Tensor,
        condition: Mapping[str, torch.Tensor] | None = None,
        ids: Mapping[str, torch.Tensor] | None = None,
        sizes: torch.Tensor | None = None,
        targets: Sequence[torch.Tensor] | None = None,
        weights: torch.Tensor | None = None,
    ) -> DenoisingOutput:
        """Predict from noisy latents, one (channels, height, width) a picture, and compare with the targets.

        Prompts come as `ids` for the text encoders, or as the `condition` that these gave before. `sizes` (pictures,
        6) are SDXL's: original height and width, top and left of the crop, height and width asked for. The loss is the
        sum of the pictures' mean squared errors times `weights`.
        """
        known: Any = self.encode(ids) if ids is not None else condition
        found: list[Any] = [None] * len(noisy)
        for places in _by_shape(noisy):
            one: Any = torch.stack([noisy[place] for place in places]).to(next(self.denoiser.parameters()).dtype)
            own = {name: tensor[places] for name, tensor in known.items()}
            own_sizes = sizes[places] if sizes is not None else None
            predicted = self.layout.predict(self.denoiser, one, timesteps[places], own, own_sizes)
            for place, picture in zip(places, predicted, strict=True):
                found[place] = picture
        if targets is None:
            return DenoisingOutput(prediction=torch.stack(found).movedim(1, -1))
        pairs = zip(found, targets, strict=True)
        losses = torch.stack([mse_loss(one.float(), target.float()) for one, target in pairs])
        return DenoisingOutput(loss=losses.mean() if weights is None else (losses * weights).sum(), losses=losses)

    def dead_modules(self) -> list[str]:
        """The names of modules that no gradient reaches, since the layout reads an encoder before its last layer."""
        found = []
        for name in self.layout.read_before_last:
            stacks = [
                (place, one) for place, one in getattr(self, name).named_modules() if isinstance(one, nn.ModuleList)
            ]
            found += [f"{name}.{place}.{len(one) - 1}" for place, one in stacks if place.endswith("encoder.layers")]
        return found

    def activation_checkpointing_enable(self, **_options: Any) -> None:
        """Keep fewer activations of every part that can."""
        for module in self.children():
            for switch in ("enable_gradient_checkpointing", "activation_checkpointing_enable"):
                if hasattr(module, switch):
                    getattr(module, switch)()
                    break

    def enable_input_require_grads(self) -> None:
        """Nothing is needed: diffusers' checkpoints pass gradients to weights whose inputs have none."""

    def pipeline(self) -> Any:
        """The pipeline that draws with these very parts, adapted ones too."""
        pipe, own = self.companions.pipeline, dict(self.named_children())
        if all(getattr(pipe, name) is module for name, module in own.items()):
            return pipe
        beside = {name: value for name, value in pipe.config.items() if not name.startswith("_")}
        kept = {name: beside[name] for name in pipe._optional_components if name in beside}
        flags = {name: value for name, value in beside.items() if isinstance(value, bool | int | float)}
        return type(pipe)(**{**kept, **flags, **pipe.components, **own})

    def save_pretrained(self, folder: str | Path, **_options: Any) -> None:
        """Write the whole pipeline, as diffusers reads it."""
        self.pipeline().save_pretrained(str(folder), safe_serialization=True)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_options: Any) -> Self:
        """The model of a pipeline's folder, each part in the dtype that its file has."""
        from diffusers import DiffusionPipeline

        folder = Path(folder)
        layout = layout_of(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])
        dtypes = {"default": _dtype_of(folder / layout.denoiser), "vae": _dtype_of(folder / "vae")}
        pipe = DiffusionPipeline.from_pretrained(str(folder), dtype=dtypes, use_safetensors=True)
        return cls.of(pipe, layout=layout, path=str(folder))

    @classmethod
    def of(cls, pipeline: Any, *, layout: Layout, path: str) -> Self:
        """The model of a loaded pipeline, frozen and in evaluation mode; its modules are the pipeline's own."""
        parts = {name: getattr(pipeline, name) for name in (layout.denoiser, *layout.encoders)}
        found = {name: module for name, module in parts.items() if module is not None}
        schedule = schedule_of(pipeline.scheduler)
        model = cls(found, layout=layout, path=path, schedule=schedule, pipeline=pipeline)
        return model.requires_grad_(False).eval()


def _dtype_of(folder: Path) -> torch.dtype:
    """The dtype of a part's weights, as its file has them."""
    with safe_open(next(folder.glob("*.safetensors")), framework="pt") as tensors:
        return tensors.get_tensor(next(iter(tensors.keys()))).dtype


def _by_shape(tensors: Sequence[torch.Tensor]) -> list[list[int]]:
    """The places of tensors of one shape, together."""
    places: dict[torch.Size, list[int]] = {}
    for place, tensor in enumerate(tensors):
        places.setdefault(tensor.shape, []).append(place)
    return [*places.values()]
