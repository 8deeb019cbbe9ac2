"""A training step of a vision-language model with both parts adapted, against PEFT's LoRA on the same layers.

Two pictures of 256 tokens and 64 tokens of text each; four layers of CLIP-L's shape, of which three reach the loss, and
two of TinyLlama's, with random weights. All linear layers of both parts are adapted, with rank 16 in the language model
and 8 in the tower.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from benchmarks.beside_lora import BesideLora
from benchmarks.peers import optimizer_of, train_step
from moslora.adapter.methods import method_config
from moslora.adapter.parts import expand

ROWS, SIDE, PATCHES, WORDS, VOCABULARY, PICTURE = 2, 224, 256, 64, 8192, 1
TOWER = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_attention_heads=16,
    num_hidden_layers=4,
    image_size=SIDE,
    patch_size=14,
)
LANGUAGE = LlamaConfig(
    hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4, num_hidden_layers=2,
    vocab_size=VOCABULARY,
)  # fmt: skip
PARTS = {"language": "model.language_model", "vision": "model.vision_tower", "projector": "model.multi_modal_projector"}
RANKS = {"language": 16, "vision": 8}


def adapted(name: str, dtype: str, *, dropout: float) -> Any:
    """The model with the named adapter in both parts, ready to train; `none` is the frozen model."""
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=TOWER, text_config=LANGUAGE, image_token_index=PICTURE, vision_feature_layer=-2)
    model: Any = LlavaForConditionalGeneration(config).to(getattr(torch, dtype))
    if name == "none":
        return model.requires_grad_(False).train()
    parts = {part: {"target_modules": "all-linear", "r": r, "lora_alpha": 2 * r} for part, r in RANKS.items()}
    options = expand({"parts": parts, "lora_dropout": dropout}, PARTS, model, method=name)
    made: PeftModel = get_peft_model(model, method_config(name, options, task_type=None))  # pyright: ignore
    return made.train()


def step(name: str, dtype: str, *, dropout: float) -> Callable[[], None]:
    """A training step; the frozen model runs the backward pass of its activations only."""
    model = adapted(name, dtype, dropout=dropout)
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(2, VOCABULARY, (ROWS, WORDS), generator=generator)
    ids = torch.cat([torch.full((ROWS, PATCHES), PICTURE), words], dim=1)
    pixels = torch.randn(ROWS, 3, SIDE, SIDE, generator=generator).to(getattr(torch, dtype))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.masked_fill(ids == PICTURE, -100)}
    if name == "none":
        patches = model.get_submodule(f"{PARTS['vision']}.embeddings")
        patches.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_())
        return lambda: model(**batch, pixel_values=pixels).loss.backward()
    return partial(train_step, model, batch | {"pixel_values": pixels}, optimizer_of(model))


VISION = BesideLora(
    "vision",
    what="vision-language",
    step=step,
    settings=[{"dtype": dtype, "dropout": dropout} for dtype in ("bfloat16", "float32") for dropout in (0.05, 0.0)],
    time_target=0.92,
    memory_target=0.60,
    facts={"rows_a_batch": ROWS, "tokens": ROWS * (PATCHES + WORDS), "ranks": RANKS},
)

if __name__ == "__main__":
    VISION.main()
