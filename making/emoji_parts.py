"""The parts of the tiny pipeline, with SDXL's structure: two text encoders, a UNet with time ids, an autoencoder."""

import itertools
import re
from collections import Counter
from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from moslora.emoji import sprites
from moslora.emoji.scenes import BACKGROUNDS, CLAUSES, COUNTS, PLACES, Scene

# Tokens, pixels, and what SDXL says of a picture: original size, crop's corner, target size.
MAX_TOKENS, SIDE = 32, 128
TIME_IDS = (SIDE, SIDE, 0, 0, SIDE, SIDE)
# Words that stand for a new subject: in the vocabulary, never in a prompt of the base model.
IDENTIFIERS = ("sks", "ikat")
_TIME_WIDTH = 32


@dataclass(frozen=True)
class Shape:
    """Widths of the networks: channels of the UNet's three levels, hidden sizes of the two text encoders."""

    channels: tuple[int, int, int] = (64, 96, 128)
    text_widths: tuple[int, int] = (64, 96)
    text_layers: int = 3
    head_width: int = 32


def words() -> list[str]:
    """All words that a prompt can hold, sorted."""
    names = [word for concept in sprites.concepts() for word in (concept.name, concept.class_word)]
    scenes = [Scene("dog", style, place=place) for style in sprites.STYLES for place in PLACES]
    scenes += [Scene("ant", background=colour, size="small", count=count) for colour in BACKGROUNDS for count in COUNTS]
    scenes += [Scene("dog", size=size) for size in ("medium", "large")]
    texts = [*names, *IDENTIFIERS, *(scene.prompt(clauses=CLAUSES) for scene in scenes)]
    return sorted({word for text in texts for word in re.findall(r"[a-z]+|[^a-z\s]", text)})


def tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that keeps each of `words()` whole and spells all others."""
    spelled = {(*word[:-1], word[-1] + "</w>") for word in words()}
    merges = []
    while pairs := Counter(pair for word in sorted(spelled) for pair in itertools.pairwise(word)):
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(pair)
        spelled = {_merged(word, pair) for word in spelled}
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def networks(shape: Shape, vocabulary: CLIPTokenizer) -> nn.ModuleDict:
    """The parts that are trained, under their names in the pipeline, freshly initialised from torch's random state."""
    first, second = shape.text_widths
    return nn.ModuleDict(
        {
            "unet": _unet(shape),
            "text_encoder": CLIPTextModel(_text_config(first, shape, vocabulary)),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(second, shape, vocabulary)),
        }
    )


def scheduler() -> DDIMScheduler:
    """A cosine schedule that ends in pure noise, for a network that predicts velocity."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )


def embedded(parts: nn.ModuleDict, token_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Text as SDXL takes it: both next-to-last layers, (N, tokens, width), and a pooled vector, (N, width)."""
    first = parts["text_encoder"](token_ids, output_hidden_states=True)
    second = parts["text_encoder_2"](token_ids, output_hidden_states=True)
    return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


def pipeline(parts: nn.ModuleDict, vocabulary: CLIPTokenizer, coder: AutoencoderTiny) -> StableDiffusionXLPipeline:
    """A plain pipeline over these parts."""
    return StableDiffusionXLPipeline(
        vae=coder,
        text_encoder=parts["text_encoder"],
        text_encoder_2=parts["text_encoder_2"],
        tokenizer=vocabulary,
        tokenizer_2=vocabulary,
        unet=parts["unet"],
        scheduler=scheduler(),
        add_watermarker=False,
    )


def _unet(shape: Shape) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        block_out_channels=shape.channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=tuple(max(1, width // shape.head_width) for width in shape.channels),
        use_linear_projection=True,
        cross_attention_dim=sum(shape.text_widths),
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=len(TIME_IDS) * _TIME_WIDTH + shape.text_widths[1],
    )


def _text_config(width: int, shape: Shape, vocabulary: CLIPTokenizer) -> CLIPTextConfig:
    # Pooling looks for the tokenizer's own end of text; the config's default names CLIP's.
    return CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=max(1, width // shape.head_width),
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary.bos_token_id,
        eos_token_id=vocabulary.eos_token_id,
        pad_token_id=vocabulary.pad_token_id,
    )


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    pieces, index = [], 0
    while index < len(word):
        whole = word[index : index + 2] == pair
        pieces.append("".join(pair) if whole else word[index])
        index += 2 if whole else 1
    return tuple(pieces)
