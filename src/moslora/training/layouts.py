"""The layouts of text-to-image models: which parts they have, what these are told of a prompt, and how they are called.

Each layout does for a batch of training what its pipeline of diffusers does when it draws.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from moslora.errors import ConfigError

Condition = dict[str, torch.Tensor]  # "tokens" (pictures, tokens, features), and "pooled" (pictures, features)
SD3_TOKENS = 256  # of its third text encoder, where there is one


class Layout:
    """A family of models. `classes` are its pipelines in diffusers."""

    classes: tuple[str, ...] = ()
    denoiser = "unet"
    encoders: tuple[str, ...] = ("text_encoder",)
    has_sizes = False  # the model is told the sizes of its pictures
    read_before_last: tuple[str, ...] = ()  # encoders of which nothing that the last layer gives is used

    def encode(self, encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], *, denoiser: Any) -> Condition:
        """What the text encoders make of their token ids."""
        raise NotImplementedError

    def predict(
        self,
        denoiser: Any,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Mapping[str, torch.Tensor],
        sizes: Any,
    ) -> torch.Tensor:
        """What the denoiser predicts from noisy latents (pictures, channels, height, width)."""
        raise NotImplementedError

    def latents_from(self, encoded: torch.Tensor, config: Any) -> torch.Tensor:
        """Latents as the denoiser sees them, of those that the autoencoder gives."""
        return encoded * config["scaling_factor"]

    def tokens(self, encoder: str, tokenizer: Any) -> int:
        """The length that prompts are padded and cut to."""
        return tokenizer.model_max_length


class StableDiffusion(Layout):
    """Stable Diffusion 1 and 2: one text encoder."""

    classes = ("StableDiffusionPipeline",)

    def encode(self, encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], *, denoiser: Any) -> Condition:
        """The last layer's features."""
        return {"tokens": encoders["text_encoder"](ids["text_encoder"])[0]}

    def predict(
        self,
        denoiser: Any,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Mapping[str, torch.Tensor],
        sizes: Any,
    ) -> torch.Tensor:
        """The UNet's prediction."""
        return denoiser(noisy, timesteps, encoder_hidden_states=condition["tokens"].to(noisy.dtype)).sample


class StableDiffusionXL(Layout):
    """SDXL: two text encoders, and the sizes of the pictures."""

    classes = ("StableDiffusionXLPipeline",)
    encoders = ("text_encoder", "text_encoder_2")
    has_sizes = True
    read_before_last = ("text_encoder",)

    def encode(self, encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], *, denoiser: Any) -> Condition:
        """The last layer but one of each encoder, and the pooled projection of the last."""
        return _penultimate(encoders, ids, pooled_from=("text_encoder_2",))

    def predict(
        self,
        denoiser: Any,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Mapping[str, torch.Tensor],
        sizes: Any,
    ) -> torch.Tensor:
        """The UNet's prediction."""
        added = {"text_embeds": condition["pooled"].to(noisy.dtype), "time_ids": sizes.to(noisy.dtype)}
        tokens = condition["tokens"].to(noisy.dtype)
        return denoiser(noisy, timesteps, encoder_hidden_states=tokens, added_cond_kwargs=added).sample


class StableDiffusion3(Layout):
    """Stable Diffusion 3: a transformer that follows a flow, and up to three text encoders."""

    classes = ("StableDiffusion3Pipeline",)
    denoiser = "transformer"
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")

    def encode(self, encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], *, denoiser: Any) -> Condition:
        """Both CLIP encoders' features side by side, then the third's tokens, or zeros in their place."""
        clip = {name: encoders[name] for name in self.encoders[:2]}
        found = _penultimate(clip, ids, pooled_from=self.encoders[:2])
        width, tokens = denoiser.config.joint_attention_dim, found["tokens"]
        padded = torch.nn.functional.pad(tokens, (0, width - tokens.shape[-1]))
        if "text_encoder_3" in encoders:
            third = encoders["text_encoder_3"](ids["text_encoder_3"])[0].to(padded.dtype)
        else:
            third = padded.new_zeros(len(padded), SD3_TOKENS, width)
        return {"tokens": torch.cat([padded, third], dim=-2), "pooled": found["pooled"]}

    def predict(
        self,
        denoiser: Any,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        condition: Mapping[str, torch.Tensor],
        sizes: Any,
    ) -> torch.Tensor:
        """The transformer's prediction."""
        return denoiser(
            hidden_states=noisy,
            timestep=timesteps.to(noisy.dtype),
            encoder_hidden_states=condition["tokens"].to(noisy.dtype),
            pooled_projections=condition["pooled"].to(noisy.dtype),
        ).sample

    def latents_from(self, encoded: torch.Tensor, config: Any) -> torch.Tensor:
        """Shifted, then scaled."""
        return (encoded - config["shift_factor"]) * config["scaling_factor"]

    def tokens(self, encoder: str, tokenizer: Any) -> int:
        """CLIP's own length; the third encoder's is the pipeline's default."""
        return SD3_TOKENS if encoder == "text_encoder_3" else tokenizer.model_max_length


LAYOUTS = MappingProxyType(
    {name: layout for layout in (StableDiffusionXL(), StableDiffusion(), StableDiffusion3()) for name in layout.classes}
)


class Ids(NamedTuple):
    """A prompt as token ids for each text encoder, and whether any had to be cut."""

    by_encoder: dict[str, list[int]]
    is_cut: bool


def layout_of(pipeline_class: str) -> Layout:
    """The layout of a pipeline's class. Raises ConfigError for one that is not known here."""
    if pipeline_class not in LAYOUTS:
        raise ConfigError(
            f"the model is a {pipeline_class}, which cannot be trained here (allowed: {', '.join(LAYOUTS)}): choose"
            " another model"
        )
    return LAYOUTS[pipeline_class]


def prompt_ids(prompt: str, tokenizers: Mapping[str, Any], layout: Layout) -> Ids:
    """A prompt for each of the text encoders, padded as the pipeline pads it."""
    found, is_cut = {}, False
    for encoder, tokenizer in tokenizers.items():
        length = layout.tokens(encoder, tokenizer)
        found[encoder] = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        is_cut = is_cut or len(tokenizer(prompt, truncation=False).input_ids) > length
    return Ids(found, is_cut)


def _penultimate(
    encoders: Mapping[str, Any], ids: Mapping[str, torch.Tensor], *, pooled_from: tuple[str, ...]
) -> Condition:
    """The last hidden states but one of CLIP text encoders, side by side, and the projections of some of them."""
    outputs = {name: encoder(ids[name], output_hidden_states=True) for name, encoder in encoders.items()}
    tokens = torch.cat([output.hidden_states[-2] for output in outputs.values()], dim=-1)
    return {"tokens": tokens, "pooled": torch.cat([outputs[name][0] for name in pooled_from], dim=-1)}
