"""Training what is not quantised of a quantised model that carries no adapter, such as a projector."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def whole_parts_may_train(model: Any) -> Iterator[None]:
    """Let a Trainer be built for a quantised model without an adapter, some of whose own parameters train.

    transformers takes every model of that kind for one whose quantised weights are to be trained.
    """
    name = "_hf_peft_config_loaded"
    is_asked = getattr(model, "is_quantized", False) and not getattr(model, name, False)
    if is_asked and any(parameter.requires_grad for parameter in model.parameters()):
        setattr(model, name, True)
        try:
            yield
        finally:
            setattr(model, name, False)
    else:
        yield
