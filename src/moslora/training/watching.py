"""What stands between a training run and the person at the keyboard: Ctrl-C, and the progress bar."""

import signal
import sys
import threading
import time
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopAfterStep(TrainerCallback):
    """On Ctrl-C (or SIGTERM) finishes the step, saves a checkpoint and ends training; a second one ends it at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.was_asked = False

    def __enter__(self) -> Self:
        """Take over the signals, where this is the main thread."""
        is_main = threading.current_thread() is threading.main_thread()
        self.former = {number: signal.signal(number, self._ask) for number in self.SIGNALS} if is_main else {}
        return self

    def __exit__(self, *_error: object) -> None:
        """Give the signals back."""
        for number, handler in self.former.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: object) -> None:
        if self.was_asked:
            raise KeyboardInterrupt("stopped at once")
        self.was_asked = True
        print("\nfinishing this step, then saving (once more: stop at once)", file=sys.stderr)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop, if asked to."""
        if self.was_asked:
            control.should_save = control.should_training_stop = True


class ShowProgress(TrainerCallback):
    """A progress bar on stderr with the latest loss; where that is no terminal, a line every half minute."""

    SECONDS_A_LINE = 30.0

    def __init__(self, *, is_hidden: bool = False) -> None:
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=is_hidden)
        self.task = self.bar.add_task("training", loss="", total=None)
        self.writes_lines = not (is_hidden or self.bar.console.is_terminal)

    def __enter__(self) -> Self:
        """Show the bar."""
        self.bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the bar standing as it is."""
        self.bar.stop()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the bar's length and where it starts."""
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        self.first, self.started = state.global_step, time.monotonic()
        self.written = self.started

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar by one step."""
        self.bar.update(self.task, completed=state.global_step)
        now = time.monotonic()
        if self.writes_lines and now - self.written >= self.SECONDS_A_LINE:
            self.written = now
            self._write_line(state, seconds=(now - self.started) / (state.global_step - self.first))

    def _write_line(self, state: TrainerState, *, seconds: float) -> None:
        loss = str(self.bar.tasks[self.task].fields["loss"])
        said = [f"step {state.global_step} of {state.max_steps}", loss, f"{seconds:.2g} s per step"]
        minutes = seconds * (state.max_steps - state.global_step) / 60
        self.bar.console.print(f"{', '.join(filter(None, said))}, about {minutes:.0f} min left", highlight=False)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest loss."""
        if "loss" in (kwargs.get("logs") or {}):
            self.bar.update(self.task, loss=f"loss {float(kwargs['logs']['loss']):.3f}")
