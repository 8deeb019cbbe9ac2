"""What is told of a run while it trains."""

from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from moslora.training.watching import ShowProgress


def steps(bar: ShowProgress, number: int, *, before: int = 0) -> None:
    state, control, args = TrainerState(max_steps=10, global_step=before), TrainerControl(), Any
    bar.on_train_begin(args, state, control)  # pyright: ignore[reportArgumentType]
    for _ in range(number):
        state.global_step += 1
        bar.on_log(args, state, control, logs={"loss": 0.25})  # pyright: ignore[reportArgumentType]
        bar.on_step_end(args, state, control)  # pyright: ignore[reportArgumentType]


def test_where_there_is_no_terminal_lines_tell_how_far_training_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clock = iter(range(0, 1000, 20))  # a step takes so many seconds
    monkeypatch.setattr("moslora.training.watching.time.monotonic", lambda: float(next(clock)))
    steps(ShowProgress(), 4, before=2)
    assert capsys.readouterr().err.splitlines() == [
        "step 4 of 10, loss 0.250, 20 s per step, about 2 min left",
        "step 6 of 10, loss 0.250, 20 s per step, about 1 min left",
    ]


def test_a_hidden_bar_says_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(ShowProgress, "SECONDS_A_LINE", 0.0)
    steps(ShowProgress(is_hidden=True), 3)
    assert capsys.readouterr().err == ""
