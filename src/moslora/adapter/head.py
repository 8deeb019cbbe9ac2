"""The language-model head, given what torch multiplies fast."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from moslora.adapter.twin import base_of


def head_of(model: nn.Module) -> nn.Module | None:
    """What gives the logits of the vocabulary; None for a model that gives none."""
    return getattr(base_of(model), "get_output_embeddings", lambda: None)()


@contextmanager
def contiguous_head_input(model: nn.Module) -> Iterator[None]:
    """The language-model head gets whole tensors inside: a model asked for few logits gives it a slice.

    For a slice of several rows and a frozen weight, torch 2.13's linear copies the weight once a row, forward and
    backward, which takes about as long as the rest of the model. A model without a head is left as it is.
    """
    head = head_of(model)
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
