"""Tokens that a tokenizer knows and a model has no embedding for, such as a padding token added later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.adapter.twin import base_of
from moslora.data.tokens import pad_token_id
from moslora.errors import ConfigError, DataError


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer beside a model of `size` embeddings; None if that is not known."""

    tokenizer: PreTrainedTokenizerBase
    size: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, model: nn.Module) -> "Vocabulary":
        """The tokenizer beside a model, with weights or without."""
        config: Any = getattr(base_of(model), "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        size = getattr(text, "vocab_size", None)
        return cls(tokenizer, size if isinstance(size, int) else None)

    @property
    def is_enough(self) -> bool:
        """Whether every token of the tokenizer has an embedding."""
        return not self.beyond([*self.tokenizer.get_vocab().values()])

    def check_padding(self) -> None:
        """Raise DataError if the token that fills up batches has no embedding."""
        if (pad := pad_token_id(self.tokenizer)) in self.beyond([pad]):
            raise DataError(
                f"the padding token {self._named(pad)}: set the tokenizer's pad_token to one that the model has, such"
                " as its end token, or use the tokenizer that belongs to the model"
            )

    def check(self, rows: Sequence[Sequence[int]], *, place: str) -> None:
        """Raise DataError for a token without an embedding; `place` names what row 1 and the others are."""
        for number, ids in enumerate(rows, start=1):
            self.check_row(ids, place=f"{place} {number}")

    def check_row(self, ids: Sequence[int], *, place: str) -> None:
        """Raise DataError, naming the place, for a token without an embedding."""
        if beyond := self.beyond(ids):
            raise DataError(
                f"{place} has the token {self._named(beyond[0])}: take it out of the text, or use the tokenizer that"
                " belongs to the model"
            )

    def check_indices(self, given: Any) -> None:
        """Raise ConfigError for an embedding to train (a list of ids, or such a list by name) that is not there."""
        lists: list[list[int]] = list(given.values()) if isinstance(given, dict) else [given or []]
        if beyond := [token for ids in lists for token in self.beyond(ids)]:
            raise ConfigError(
                f"adapter.trainable_token_indices names the token {beyond[0]}, and the model has {self.size} embeddings"
                " (from 0): give ids that it has"
            )

    def beyond(self, ids: Sequence[int]) -> list[int]:
        """The tokens without an embedding."""
        return [] if self.size is None or max(ids, default=0) < self.size else [i for i in ids if i >= self.size]

    def _named(self, token: int) -> str:
        text = self.tokenizer.convert_ids_to_tokens(token)
        return f"'{text}' with the id {token}, and the model has {self.size} embeddings (from 0)"
