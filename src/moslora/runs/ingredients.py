"""The parts of a LLaVA model as they come: a language model with its tokenizer, a vision tower with its processor."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionModel,
    Dinov2Model,
    PreTrainedConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from moslora.errors import ConfigError, MosloraError, unknown_name
from moslora.runs.internlm2 import is_internlm2, load_internlm2, local_folder
from moslora.runs.models import LOADING_ERRORS, resolve_model
from moslora.runs.sentencepieces import convert_tokenizer

IMAGE_TOKEN = "<image>"
# type of a folder's model: the class that loads its vision tower, from a model of pictures and text too
TOWERS: dict[str, Any] = {
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
    "siglip": SiglipVisionModel,
    "siglip_vision_model": SiglipVisionModel,
    "dinov2": Dinov2Model,
}


@dataclass
class LanguagePart:
    """A language model, on the CPU, and its tokenizer."""

    model: Any
    tokenizer: Any

    @property
    def width(self) -> int:
        """The size of a hidden state."""
        return self.model.config.hidden_size

    def text_logits(self, text: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens of a text (1, N) and the logits (1, N, V) in float32 for the V tokens that the tokenizer has."""
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            return ids, self.model(input_ids=ids).logits[..., : len(self.tokenizer)].float()

    def add_image_token(self) -> tuple[int, int]:
        """Give the tokenizer one token for pictures; its number, and how many rows the embedding grew by.

        A token of that name is kept. A new one takes a row that the tokenizer has no token for, or a new row, filled
        with the mean of the others; its embedding is replaced by the picture's features, its logit is the mean logit.
        """
        known, rows = len(self.tokenizer), self.model.get_input_embeddings().num_embeddings
        self.tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
        number = self.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if number >= rows:
            self.model.resize_token_embeddings(number + 1, mean_resizing=False)
        if len(self.tokenizer) > known:
            with torch.no_grad():
                for layer in (self.model.get_input_embeddings(), self.model.get_output_embeddings()):
                    layer.weight[number] = layer.weight[:known].float().mean(dim=0)
        return number, max(number + 1 - rows, 0)


@dataclass
class TowerPart:
    """A vision tower, on the CPU, and the image processor that came with it."""

    model: Any
    image_processor: Any

    @property
    def config(self) -> Any:
        """The tower's configuration."""
        return self.model.config

    def features(self, pixels: torch.Tensor, *, layer: int) -> torch.Tensor:
        """The hidden states (B, N, C) that a projector reads, for pictures (B, 3, H, W)."""
        with torch.no_grad():
            return self.model(pixels.to(self.model.dtype), output_hidden_states=True).hidden_states[layer]


def load_language(path: str, *, dtype: torch.dtype, tokenizer: str | None = None) -> LanguagePart:
    """A language model (folder, .gguf file, `smollm2` or hub id) and its tokenizer, or the tokenizer of another folder.

    InternLM2 models are converted to Llama's layout. Raises ConfigError for what cannot be loaded or joined.
    """
    model: Any
    with _loading("language model", path):
        place = resolve_model(path)
        if is_internlm2(place):
            model = load_internlm2(place, dtype=dtype)
        else:
            model = _loaded(AutoModelForCausalLM, place, dtype=dtype, use_safetensors=True)
    with _loading("tokenizer", tokenizer or path):
        text = load_tokenizer(tokenizer or path)
    head, rows = model.get_output_embeddings(), model.get_input_embeddings().num_embeddings
    if type(head) is not torch.nn.Linear or head.bias is not None or getattr(model, "is_quantized", False):
        raise ConfigError(
            f"the language model '{path}' has a quantised head, or one with a bias, which LLaVA models do not have:"
            " give an unquantised model such as Llama, Mistral or Qwen"
        )
    if len(text) > rows:
        raise ConfigError(
            f"the tokenizer of '{tokenizer or path}' has {len(text)} tokens and the model {rows}: give the"
            " model's own tokenizer"
        )
    return LanguagePart(model, text)


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a folder or hub id; one that an InternLM2 has as a SentencePiece file only is converted."""
    place = resolve_model(path)
    if is_internlm2(place):
        folder = local_folder(place)
        if not (folder / "tokenizer.json").is_file():
            return convert_tokenizer(folder)
    return AutoTokenizer.from_pretrained(place)


def load_tower(path: str, *, dtype: torch.dtype) -> TowerPart:
    """A vision tower (CLIP, SigLIP or DINOv2; also out of a whole CLIP or SigLIP model) and its image processor.

    Raises ConfigError for another model, and for one that cannot be loaded.
    """
    with _loading("vision tower", path):
        place = resolve_model(path)
        kind = AutoConfig.from_pretrained(place).model_type
        if kind not in TOWERS:
            raise unknown_name("vision tower", kind, TOWERS)
        options: dict[str, Any] = {}
        if TOWERS[kind] is SiglipVisionModel:  # LLaVA reads hidden states only: its pooling head stays behind
            config: PreTrainedConfig = SiglipVisionConfig.from_pretrained(place)
            config.vision_use_head = False
            options["config"] = config
        model = _loaded(TOWERS[kind], place, dtype=dtype, **options)
    with _loading("image processor", path):
        return TowerPart(model, AutoImageProcessor.from_pretrained(place, backend="pil"))


def _loaded(kind: Any, place: str, *, dtype: torch.dtype, **options: Any) -> Any:
    """A model with all of its weights, in evaluation mode."""
    model, info = kind.from_pretrained(place, dtype=dtype, output_loading_info=True, **options)
    if missing := sorted(info["missing_keys"]):
        raise ConfigError(f"'{place}' lacks {len(missing)} of its weights ({', '.join(missing[:3])}): get it again")
    return model.eval()


@contextmanager
def _loading(what: str, path: str) -> Iterator[None]:
    """Turn what transformers raises for a part that cannot be loaded into one line."""
    try:
        yield
    except MosloraError:
        raise
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:250]
        raise ConfigError(
            f"the {what} '{path}' cannot be loaded: {reason} (give a local folder or a hub id that can be reached)"
        ) from error
