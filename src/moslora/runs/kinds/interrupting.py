"""Ctrl-C while an answer is written: it ends there, and what was asked for next can be asked."""

import signal
import threading
from typing import Any, Self

import torch
from transformers import StoppingCriteria


class StopAfterToken(StoppingCriteria):
    """On Ctrl-C ends the answer after its next token; a second one before that raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.was_asked = False

    def __enter__(self) -> Self:
        """Take over Ctrl-C, where this is the main thread."""
        is_main = threading.current_thread() is threading.main_thread()
        self.former = signal.signal(signal.SIGINT, self._ask) if is_main else None
        return self

    def __exit__(self, *_error: object) -> None:
        """Give Ctrl-C back."""
        if self.former is not None:
            signal.signal(signal.SIGINT, self.former)

    def __call__(self, input_ids: torch.LongTensor, scores: Any, **_options: Any) -> torch.BoolTensor:
        """Whether each row of a batch ends."""
        rows = input_ids.shape[0]
        return torch.full((rows,), self.was_asked, dtype=torch.bool, device=input_ids.device)  # pyright: ignore[reportReturnType]

    def _ask(self, _number: int, _frame: object) -> None:
        if self.was_asked:
            raise KeyboardInterrupt("stopped at once")
        self.was_asked = True
