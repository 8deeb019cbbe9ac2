"""A training step on blocks of SDXL's UNet, against PEFT's LoRA on the same layers.

The two widths of SDXL that have attention, 640 and 1280: a residual block and a transformer of two layers each, with
random weights, on the latents of one picture of 512 pixels and the 77 tokens of its caption. Adapted are the attention
projections with rank 4, as DreamBooth's scripts do it, or those and the convolutions with rank 16; without dropout.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D
from peft import get_peft_model
from torch import nn
from torch.nn import functional as F

from benchmarks.beside_lora import BesideLora
from benchmarks.peers import optimizer_of, train_step
from moslora.adapter.methods import method_config

# The widths, of which the first is what comes in, the side of the latents there, and the text's width. SDXL's first
# two blocks have no attention; the second halves the side, which is 64 for 512 pixels.
SHAPES = {"SDXL": ((320, 640, 1280), 32, 2048), "tiny": ((32, 32, 64), 4, 16)}
WORDS, TIME, HEAD = 77, 1280, 64
ATTENTION, CONVOLUTIONS = ["to_q", "to_k", "to_v", "to_out.0"], ["conv1", "conv2", "conv_shortcut"]
TARGETS = {"attention": ATTENTION, "attention and convolutions": ATTENTION + CONVOLUTIONS}
OPTIONS = {"lora": {}, "moslora": {"mixer": "orthogonal"}}


class Blocks(nn.Module):
    """The UNet's way down over the widths that have attention."""

    def __init__(self, shape: str) -> None:
        super().__init__()
        widths, _, text = SHAPES[shape]
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            CrossAttnDownBlock2D(
                narrow,
                wide,
                TIME,
                transformer_layers_per_block=2,
                num_attention_heads=max(1, wide // HEAD),
                cross_attention_dim=text,
                use_linear_projection=True,
                add_downsample=wide != widths[-1],
            )
            for narrow, wide in pairwise(widths)
        )

    def forward(self, latents: torch.Tensor, time: torch.Tensor, text: torch.Tensor, target: torch.Tensor) -> Any:
        """The loss of latents (N, C, H, W), a time (N, T) and a text (N, words, D) against what should come out."""
        x = latents
        for block in self.blocks:
            x, _ = block(x, time, text)
        return SimpleNamespace(loss=F.mse_loss(x.float(), target))


def step(name: str, dtype: str, *, layers: str, rank: int, shape: str = "SDXL") -> Callable[[], None]:
    """A training step. As within the whole UNet, every peer's gradients reach what comes in."""
    kind = getattr(torch, dtype)
    model: Any = Blocks(shape).to(kind).requires_grad_(False)
    if name != "none":
        options = {"r": rank, "lora_alpha": rank, "target_modules": TARGETS[layers], **OPTIONS[name]}
        model = get_peft_model(model, method_config(name, options, task_type=None))  # pyright: ignore
    batch = batch_of(shape, kind)
    if name == "none":
        return lambda: model(**batch).loss.backward()
    return partial(train_step, model.train(), batch, optimizer_of(model))


def batch_of(shape: str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """One picture's latents, time and text, drawn at random, and what should come out in float32."""
    widths, side, text = SHAPES[shape]
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(1))
    out = side // 2 ** (len(widths) - 2)
    return {
        "latents": draw(1, widths[0], side, side).to(dtype).requires_grad_(),
        "time": draw(1, TIME).to(dtype),
        "text": draw(1, WORDS, text).to(dtype),
        "target": draw(1, widths[-1], out, out),
    }


SUBJECT = BesideLora(
    "subject",
    what="SDXL blocks",
    step=step,
    settings=[
        {"dtype": dtype, "layers": layers, "rank": rank}
        for dtype in ("bfloat16", "float32")
        for layers, rank in (("attention", 4), ("attention and convolutions", 16))
    ],
    time_target=0.95,
    memory_target=0.70,
    facts={"pictures": 1, "latents": SHAPES["SDXL"][1], "dropout": 0.0},
)

if __name__ == "__main__":
    SUBJECT.main()
