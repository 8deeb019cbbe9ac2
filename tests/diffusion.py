"""Tiny text-to-image pipelines of random weights, written as the folders that diffusers reads; no hub is asked.

A picture is 32 x 32 pixels, its latents are (4, 16, 16). Two steps of drawing take a tenth of a second on one thread.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

WIDTH = 32
LATENT_SIZE = 16
BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's kind of tokenizer with a token a byte, and one more for each byte that ends a word."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{byte}</w>" for byte in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5_tokenizer() -> T5TokenizerFast:
    """T5's kind of tokenizer with a token a printable character of ASCII."""
    characters = [(chr(code), -1.0) for code in range(33, 127)]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return T5TokenizerFast(vocab=[*special, *characters], extra_ids=0, model_max_length=256)


def tiny_sdxl(folder: str | Path, *, seed: int = 0, autoencoder: str = "kl") -> Path:
    """Stable Diffusion XL: two text encoders, time ids, linear projections. `autoencoder` is `kl` or `tiny`.

    With `tiny` (AutoencoderTiny, factor 2) diffusers logs an "Expected types" warning on loading; it means nothing.
    """
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(
        **_unet_sizes(),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,  # six time ids and the pooled prompt
        cross_attention_dim=2 * WIDTH,
    )
    pipe = StableDiffusionXLPipeline(
        unet=unet,
        vae=_autoencoder(autoencoder, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(hidden_act="gelu")),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="leading"),
        add_watermarker=False,
    )
    return _saved(pipe, folder)


def tiny_sd15(folder: str | Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 1.5: one text encoder, 1 x 1 convolutions around its attention, no safety checker."""
    torch.manual_seed(seed)
    pipe = StableDiffusionPipeline(
        unet=UNet2DConditionModel(**_unet_sizes(), cross_attention_dim=WIDTH),
        vae=_autoencoder("kl", scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_text_config()),
        tokenizer=clip_tokenizer(),
        scheduler=PNDMScheduler(**BETAS, steps_offset=1, skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _saved(pipe, folder)


def tiny_sd3(folder: str | Path, *, seed: int = 0) -> Path:
    """Stable Diffusion 3: a flow-matching transformer, two CLIP encoders and a T5 encoder."""
    torch.manual_seed(seed)
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=4 * 8,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=LATENT_SIZE,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        vae=_autoencoder("kl", scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=CLIPTextModelWithProjection(_text_config()),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(hidden_act="gelu")),
        text_encoder_3=_t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return _saved(pipe, folder)


def tiny_flux(folder: str | Path, *, seed: int = 0) -> Path:
    """FLUX: a flow-matching transformer on latents packed 2 x 2, (1, 64, 16) for 32 pixels; a CLIP and a T5 encoder."""
    torch.manual_seed(seed)
    transformer = FluxTransformer2DModel(
        in_channels=4 * 4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    pipe = FluxPipeline(
        transformer=transformer,
        vae=_autoencoder("kl", scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(_text_config()),
        text_encoder_2=_t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    return _saved(pipe, folder)


def _unet_sizes() -> dict[str, Any]:
    return {
        "sample_size": LATENT_SIZE,
        "block_out_channels": (WIDTH, 2 * WIDTH),
        "layers_per_block": 2,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (2, 4),
    }


def _text_config(**options: Any) -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=WIDTH + 5,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,  # by default OpenAI's, without which every prompt is pooled at its start
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def _t5_encoder() -> T5EncoderModel:
    sizes = {"d_model": 2 * WIDTH, "d_kv": 8, "d_ff": WIDTH, "num_layers": 2, "num_heads": 4}
    return T5EncoderModel(T5Config(vocab_size=len(t5_tokenizer()), **sizes))


def _autoencoder(kind: str, **options: float) -> AutoencoderKL | AutoencoderTiny:
    if kind == "tiny":
        blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1), "upsampling_scaling_factor": 2}
        channels = {"encoder_block_out_channels": (16, 16), "decoder_block_out_channels": (16, 16)}
        return AutoencoderTiny(**blocks, **channels)  # pyright: ignore[reportArgumentType]
    return AutoencoderKL(
        block_out_channels=(WIDTH, 2 * WIDTH),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=2 * LATENT_SIZE,
        **options,
    )


def _saved(pipe: Any, folder: str | Path) -> Path:
    pipe.save_pretrained(folder)
    return Path(folder)
