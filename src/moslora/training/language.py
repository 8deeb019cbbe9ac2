"""Training an adapter of a language model on tokenised examples, with transformers' Trainer.

Read from top to bottom: `train` builds the Trainer, finds where to resume, runs it, and says what came out.
"""

import json
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from moslora.data.tokens import Example, collate

STATE_FILE = "trainer_state.json"  # written last, so a checkpoint that has it is complete


@dataclass(frozen=True)
class TrainingResult:
    """What a training run came to: steps done, mean loss, seconds of this process's part."""

    steps: int
    train_loss: float
    wall_seconds: float


def train(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    arguments: TrainingArguments,
    pad_token_id: int,
    validation: Sequence[Example] | None = None,
    metrics_path: Path,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train in place. Logged values go to `metrics_path`, one JSON object a line.

    With `resume`, training goes on from the newest complete checkpoint in `arguments.output_dir`, to the same weights
    as without the interruption. Ctrl-C ends the step, saves a checkpoint, and raises KeyboardInterrupt.
    """
    checkpoint = newest_checkpoint(Path(str(arguments.output_dir))) if resume else None
    forget_after(metrics_path, step=_step(checkpoint))
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=list(examples),  # pyright: ignore[reportArgumentType]
        eval_dataset=list(validation) if validation else None,  # pyright: ignore[reportArgumentType]
        data_collator=lambda batch: collate(batch, pad_token_id=pad_token_id),
        callbacks=[WriteMetrics(metrics_path), *([ShowProgress()] if progress else [])],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with StopAfterStep() as stop:
        trainer.add_callback(stop)
        output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.was_asked:
        raise KeyboardInterrupt(f"stopped after step {output.global_step}, which is saved")
    return TrainingResult(output.global_step, output.training_loss, output.metrics["train_runtime"])


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step that was written to its end; half-written ones are removed."""
    complete = []
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step):
        try:
            json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(checkpoint)
        else:
            complete.append(checkpoint)
    return complete[-1] if complete else None


def forget_after(metrics_path: Path, *, step: int) -> None:
    """Drop the metrics logged after `step`: the resumed run logs them again."""
    if metrics_path.exists():
        lines = metrics_path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        metrics_path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


class WriteMetrics(TrainerCallback):
    """Appends what the Trainer logs to a file, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write one line."""
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": state.global_step, **(kwargs.get("logs") or {})}) + "\n")


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

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop, if asked to."""
        if self.was_asked:
            control.should_save = control.should_training_stop = True
        return control


class ShowProgress(TrainerCallback):
    """A progress bar on stderr with the latest loss."""

    def __init__(self) -> None:
        from rich.console import Console

        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"))
        self.progress = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self.task = self.progress.add_task("training", loss="")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar."""
        if state.is_world_process_zero:
            self.progress.start()
            self.progress.update(self.task, total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar by one step."""
        self.progress.update(self.task, completed=state.global_step)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show the latest loss."""
        if "loss" in (kwargs.get("logs") or {}):
            self.progress.update(self.task, loss=f"loss {float(kwargs['logs']['loss']):.3f}")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the full bar standing."""
        self.progress.stop()


def _step(checkpoint: Path | None) -> int:
    number = checkpoint.name.rpartition("-")[2] if checkpoint else "0"
    return int(number) if number.isdigit() else -1
