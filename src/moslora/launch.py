"""Several processes that `accelerate launch` or `torchrun` started together: which one this is, and what they share."""

import os
from typing import Any, TypeVar

Value = TypeVar("Value")


def is_first() -> bool:
    """Whether this process is the only one or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def are_several() -> bool:
    """Whether this process is one of several that were launched together."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def own_share(values: list[Value]) -> list[Value]:
    """The part of a list that is this process's to work on: every n-th value of n processes."""
    if not are_several():
        return values
    return values[int(os.environ["RANK"]) :: int(os.environ["WORLD_SIZE"])]


def agreed(value: Value) -> Value:
    """The first process's value, in every process, once all of them have come here."""
    if not are_several():
        return value
    from accelerate.utils import broadcast_object_list

    _connect()
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]


def gathered(values: list[Value]) -> list[Value]:
    """The values of all processes, in every process, once all of them have come here."""
    if not are_several():
        return values
    from accelerate.utils import gather_object

    _connect()
    found: Any = gather_object(values)
    return found


def _connect() -> None:
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.accelerator.is_available())
