"""In which dtype autocast computes, asked in a way that compilers of older versions of torch can follow."""

import pytest
import torch

from moslora.core.precision import autocast_dtype


def test_autocast_is_seen_on_its_own_device_alone():
    assert autocast_dtype("cpu") is None
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast_dtype("cpu") == torch.bfloat16
        assert autocast_dtype("cuda") is None
    assert autocast_dtype("meta") is None


def test_the_question_is_one_that_torch_2_11_compiles(monkeypatch):
    def break_the_graph(kind):
        pytest.fail("torch 2.11 breaks its graph at torch.amp.is_autocast_available, at every layer")

    monkeypatch.setattr(torch.amp, "is_autocast_available", break_the_graph)
    assert autocast_dtype("cpu") is None
