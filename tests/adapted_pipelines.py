"""One adapter over the parts of a tiny pipeline, as training makes it, with numbers that move every picture."""

import functools
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from moslora import MosloraConfig
from moslora.adapter.pipeline_proof import latents_probe

PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
ATTENTION = ["to_q", "to_v", "q_proj", "v_proj"]
quick = functools.partial(latents_probe, guidance_scale=1.0)  # half the work


class Parts(nn.Module):
    """The parts of a pipeline that an adapter may change, under their names in it."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        for name in PARTS:
            if getattr(pipe, name, None) is not None:
                self.add_module(name, getattr(pipe, name))


def load_plain(folder: Path, kind: Any = DiffusionPipeline, **options: Any) -> Any:
    pipe = kind.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def mixed(**options: Any) -> MosloraConfig:
    """A MoSLoRA configuration whose alpha is not its rank."""
    return MosloraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ATTENTION} | options)


def adapted(folder: Path, config: PeftConfig, *, dtype: torch.dtype | None = None, **options: Any) -> PeftModel:
    """An adapter over a pipeline's parts with every factor drawn anew, B too, so that it is at work."""
    torch.manual_seed(11)
    pipe = load_plain(folder) if dtype is None else load_plain(folder, dtype=dtype)
    model = get_peft_model(Parts(pipe), config, **options)
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
