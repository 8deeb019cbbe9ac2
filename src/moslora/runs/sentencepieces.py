"""A SentencePiece tokenizer of the BPE kind as a fast tokenizer, from its file alone, without the model's own code."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf

from moslora.errors import CheckpointError, ConfigError, MissingDependencyError

BPE_KIND, NORMAL, WHOLE = 2, 1, 4  # in SentencePiece's files: a model's type, types of pieces
SPECIALS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


def convert_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder with `tokenizer.model`, and `tokenizer_config.json` for its special tokens.

    Raises CheckpointError for a file that is not SentencePiece's, ConfigError for another kind than BPE and for a
    folder without one, MissingDependencyError without protobuf.
    """
    settings = _settings(folder / "tokenizer_config.json")
    model = _read(folder / "tokenizer.model")
    if model.trainer_spec.model_type != BPE_KIND:
        raise ConfigError(f"{folder}/tokenizer.model is not a BPE model: give a converted tokenizer with --tokenizer")
    names = [piece.piece for piece in model.pieces]
    added = {int(number): token for number, token in settings.get("added_tokens_decoder", {}).items()}
    for number, token in added.items():  # a chat model's tokens take the places of unused pieces
        if number < len(names):
            names[number] = token["content"]
    special = [token if isinstance(token, str) else token["content"] for token in _special(settings).values()]
    tokenizer = _bpe(model, names, unknown=special[0])
    whole = [names[number] for number, piece in enumerate(model.pieces) if piece.type == WHOLE and number not in added]
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in whole])
    tokenizer.add_tokens([_added(token) for _, token in sorted(added.items())])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    start = special[1] if settings.get("add_bos_token", True) else None
    end = special[2] if settings.get("add_eos_token", False) else None
    tokenizer.post_processor = _template(tokenizer, start=start, end=end)
    named = dict(zip(SPECIALS, special, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
    fast.chat_template = settings.get("chat_template")
    return fast


def _bpe(model: Any, names: list[str], *, unknown: str) -> Tokenizer:
    """The tokenizer without special tokens; merges go by the pieces' scores, as SentencePiece's do."""
    vocabulary = {name: number for number, name in enumerate(names)}
    if len(vocabulary) != len(names):
        raise CheckpointError("tokenizer.model has a piece twice, or tokenizer_config.json adds one that it has")
    scores = [(names[number], piece.score) for number, piece in enumerate(model.pieces) if piece.type == NORMAL]
    merges = generate_merges(vocabulary, scores)
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    has_prefix = model.normalizer_spec.add_dummy_prefix
    prefix = [normalizers.Prepend("▁")] if has_prefix else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(content=" ", left=1)] if has_prefix else []
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _template(tokenizer: Tokenizer, *, start: str | None, end: str | None) -> Any:
    around = [token for token in (start, end) if token is not None]
    single = [*([start] if start else []), "$A", *([end] if end else [])]
    pair = [*single, *([f"{start}:1"] if start else []), "$B:1", *([f"{end}:1"] if end else [])]
    numbers = [(token, tokenizer.token_to_id(token)) for token in dict.fromkeys(around)]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=numbers)


def _added(token: dict[str, Any]) -> AddedToken:
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return AddedToken(token["content"], **{name: token[name] for name in flags if name in token})


def _special(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings.get(name) or default for name, default in SPECIALS.items()}


def _settings(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): get a fresh copy of the file") from None


def _read(path: Path) -> Any:
    """The parsed model file."""
    if not path.is_file():
        raise ConfigError(f"there is no {path}: give a folder with a tokenizer with --tokenizer")
    try:
        pieces: Any = import_protobuf()
        model = pieces.ModelProto()
    except ImportError as error:
        raise MissingDependencyError(f"reading {path.name} needs the package protobuf: pip install protobuf") from error
    from google.protobuf.message import DecodeError

    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise CheckpointError(f"{path} is damaged ({error}): get a fresh copy of the file") from None
    if not model.pieces:
        raise CheckpointError(f"{path} holds no pieces: get a fresh copy of the file")
    return model
