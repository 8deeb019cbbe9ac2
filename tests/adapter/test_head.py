"""A model asked for few logits gives its head a slice, which torch multiplies slowly; inside, it gets whole ones."""

import torch
from torch import nn

from moslora.adapter.head import contiguous_head_input


def seen_by_head(model, input_ids):
    """Whether the head's input was contiguous, and the logits."""
    seen = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    logits = model(input_ids=input_ids, logits_to_keep=2).logits
    handle.remove()
    return seen[0].is_contiguous(), logits


def test_the_head_gets_whole_tensors_and_gives_the_same_logits(tiny_llama):
    input_ids = torch.arange(1, 11).reshape(2, 5)
    before, plain = seen_by_head(tiny_llama, input_ids)
    with contiguous_head_input(tiny_llama):
        inside, logits = seen_by_head(tiny_llama, input_ids)
    after, _ = seen_by_head(tiny_llama, input_ids)
    assert (before, inside, after) == (False, True, False)
    torch.testing.assert_close(logits, plain)


def test_a_model_without_a_head_is_left_alone():
    model = nn.Linear(2, 2)
    with contiguous_head_input(model):
        assert not model._forward_pre_hooks
