"""Batches of tokenised examples, as a language model is trained on them."""

from torch import nn

from moslora.adapter.twin import accepts
from moslora.data.probing import sees_left_padding
from moslora.data.tokens import collate
from moslora.training.trainer import Collate


def collator(model: nn.Module, *, pad_token_id: int) -> Collate:
    """What makes batches for a model: rows end at the same column where it can be asked for few logits."""
    at_end = all(accepts(model, name) for name in ("logits_to_keep", "position_ids")) and not sees_left_padding(model)
    return lambda batch: collate(batch, pad_token_id=pad_token_id, at_end=at_end)
