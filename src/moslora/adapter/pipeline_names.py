"""What the layers of a text-to-image pipeline are called in LoRA files, by diffusers and by kohya's programs.

A layer is a part of the pipeline and a module in it: `unet.down_blocks.1.….to_q`. In diffusers' files it keeps that
name; kohya's sd-scripts, ComfyUI and A1111 want `lora_unet_down_blocks_1_…_to_q`. Written against diffusers 0.42.

From 5.6 on, transformers calls the layers of a `CLIPTextModel` `encoder.layers…`; before, and in a
`CLIPTextModelWithProjection` to this day, they are `text_model.encoder.layers…`. Files have the longer name, which
programs of either age read.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from moslora.errors import ConfigError, unknown_name

FACTORS = {"diffusers": ("lora_A.weight", "lora_B.weight"), "kohya": ("lora_down.weight", "lora_up.weight")}
FORMATS = tuple(FACTORS)
SHORT_ENCODER = re.compile(r"^(text_encoder(?:_\d)?)\.(?=encoder\.layers\.)")
SDXL_NAMES = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
KOHYA_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}


@dataclass(frozen=True)
class Naming:
    """The names in a file of one format, for a pipeline with one text encoder or with several."""

    format: str
    has_one_encoder: bool

    def layer(self, layer: str) -> str:
        """What a layer's keys start with, before the dot."""
        full = with_text_model(layer)
        if self.format == "diffusers":
            return full
        part, _, module = full.partition(".")
        module = SDXL_NAMES.get(module, module)  # diffusers knows these two by them alone
        prefix = KOHYA_PARTS.get(part, f"lora_{part}")
        if self.has_one_encoder and part == "text_encoder":
            prefix = "lora_te"
        return f"{prefix}_{module.replace('.', '_')}"

    def keys(self, layer: str) -> tuple[str, str]:
        """The keys of a layer's A and B."""
        a_name, b_name = FACTORS[self.format]
        return f"{self.layer(layer)}.{a_name}", f"{self.layer(layer)}.{b_name}"


def naming_for(parts: Iterable[str], *, format: str) -> Naming:
    """The names that a file of this format has for a pipeline of these parts (`unet`, `text_encoder`, …).

    Raises ConfigError for an unknown format, and for kohya's where the denoiser is a transformer.
    """
    parts = set(parts)
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    if format == "kohya" and "transformer" in parts:
        raise ConfigError(
            "format='kohya' cannot name the layers of a transformer (SD3, FLUX), where kohya's programs join into one"
            " what diffusers keeps as to_q, to_k and to_v: use format='diffusers', which ComfyUI reads there too"
        )
    return Naming(format, has_one_encoder="text_encoder_2" not in parts)


def format_of(keys: Iterable[str]) -> str:
    """The format of a file with these keys, as diffusers tells them apart."""
    return "kohya" if all(key.startswith("lora_") for key in keys) else "diffusers"


def with_text_model(name: str) -> str:
    """A layer's name, or a key of diffusers' format, with the `text_model` that newer text encoders leave out."""
    return SHORT_ENCODER.sub(r"\1.text_model.", name)
