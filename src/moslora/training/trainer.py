"""Training an adapter with transformers' Trainer, on rows of any kind: what makes batches of them is given.

Read from top to bottom: `train` builds the Trainer, finds where to resume, runs it, and says what came out.
"""

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.utils import SAFE_WEIGHTS_NAME

from moslora.adapter.head import contiguous_head_input
from moslora.baselines.loraplus import MakeOptimizer
from moslora.files import write_atomically
from moslora.training.averaging import Average
from moslora.training.checkpoints import newest_checkpoint, read_state, step_of
from moslora.training.grouping import AlikeSampler, GroupSampler
from moslora.training.quantised import whole_parts_may_train
from moslora.training.validation import SampleLoss, mean_over_tokens, sample_losses
from moslora.training.visits import Visits
from moslora.training.watching import ShowProgress, StopAfterStep

Collate = Callable[[list[Any]], dict[str, Any]]  # rows to the arguments of a forward pass, `labels` among them


@dataclass(frozen=True)
class TrainingResult:
    """What a training run came to.

    `steps` and `train_loss` (the mean over the steps; None without any) count from the very first step, `wall_seconds`
    only this process's part. `validation_losses` are those of the weights kept, one an example, where all steps were
    done. `was_stopped`: Ctrl-C was pressed; `is_complete`: all steps were done nevertheless.
    """

    steps: int
    train_loss: float | None
    validation_losses: list[SampleLoss]
    wall_seconds: float
    is_complete: bool
    was_stopped: bool

    @property
    def validation_loss(self) -> float | None:
        """The mean over the tokens of all validation examples; None without any."""
        return mean_over_tokens(self.validation_losses) if self.validation_losses else None


def train(
    model: nn.Module,
    examples: Sequence[Any],
    *,
    arguments: TrainingArguments,
    collate: Collate,
    validation: Sequence[Any] | None = None,
    groups: Sequence[Hashable] | None = None,
    alike: Sequence[tuple[Hashable, int]] | None = None,
    visited_steps: int | None = None,
    metrics_path: Path,
    make_optimizer: MakeOptimizer | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    average: Average | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train in place. Logged values go to `metrics_path`, one JSON object a line.

    `collate` makes a batch of rows. With `groups`, which names each example's group, the examples of a group stay
    together in the shuffled order; with `alike`, each example's kind and length, batches are of one kind and of like
    lengths. With `visited_steps` so many steps are done on `Visits` to the examples, whatever the arguments say.
    `make_optimizer` builds the optimiser from the model, the optimiser's class and its settings, where not all
    parameters learn alike; `callbacks` are the method's own. An `average` of the weights takes their place at the end.

    With `resume`, training goes on from the newest complete checkpoint in `arguments.output_dir`, to the same weights
    as without the interruption. Ctrl-C ends the step, saves a checkpoint, and ends training; a second one raises
    KeyboardInterrupt at once.
    """
    checkpoint = newest_checkpoint(Path(str(arguments.output_dir))) if resume else None
    forget_after(metrics_path, step=step_of(checkpoint) if checkpoint else 0)
    with StopAfterStep() as stop, ShowProgress(is_hidden=not progress) as bar, contiguous_head_input(model):
        with whole_parts_may_train(model):
            trainer = MethodTrainer(
                model=model,
                args=arguments,
                train_dataset=_dataset(examples, arguments, visited_steps),  # pyright: ignore[reportArgumentType]
                eval_dataset=list(validation) if validation else None,  # pyright: ignore[reportArgumentType]
                data_collator=collate,
                callbacks=[stop, WriteMetrics(metrics_path), bar, *([average] if average else []), *callbacks],
            )
        trainer.make_optimizer, trainer.groups, trainer.alike = make_optimizer, groups, alike
        trainer.average = average
        if average is not None and checkpoint is not None:
            average.load(checkpoint)
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        steps, seconds = _steps_done(trainer, checkpoint), 0.0
        if steps is None:
            output = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            steps, seconds = output.global_step, output.metrics["train_runtime"]
        is_complete = steps >= trainer.state.max_steps
        if average is not None and is_complete:
            average.apply()
        losses = trainer.sample_losses() if validation and is_complete else []
    return TrainingResult(steps, mean_loss(metrics_path), losses, seconds, is_complete, stop.was_asked)


class MethodTrainer(Trainer):
    """transformers' Trainer with an optimiser of the method's own, samples that stay together, and a validation loss.

    The optimiser is built when the Trainer would build its. The Trainer's own validation loss is a mean of batches'
    means, so that it depends on their size.
    """

    make_optimizer: MakeOptimizer | None = None
    groups: Sequence[Hashable] | None = None
    alike: Sequence[tuple[Hashable, int]] | None = None
    average: Average | None = None

    def _get_train_sampler(self, train_dataset: "Dataset[Any] | None" = None) -> "Sampler[int] | None":
        seed = self.args.data_seed or 0
        if isinstance(train_dataset or self.train_dataset, Visits):
            return SequentialSampler(range(len(self.train_dataset)))  # pyright: ignore[reportArgumentType]
        if self.groups is not None:
            return GroupSampler(self.groups, seed=seed)
        if self.alike is not None:
            return AlikeSampler(self.alike, batch_size=self._samples_a_step, seed=seed)
        return super()._get_train_sampler(train_dataset)

    @property
    def _samples_a_step(self) -> int:
        return _samples_a_step(self.args)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write what is trained of a model without an adapter, by the names it is loaded by.

        transformers would write all of the model, and under names of older versions, which loading passes over.
        """
        if self.average is not None and self.args.should_save:
            self.average.save(Path(output_dir or str(self.args.output_dir)))
        if isinstance(self.model, PeftModel) or state_dict is not None or not self.args.should_save:
            super()._save(output_dir, state_dict)
            return
        folder, model = Path(output_dir or str(self.args.output_dir)), self.accelerator.unwrap_model(self.model)
        trained = {name: one.detach().contiguous() for name, one in model.named_parameters() if one.requires_grad}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / SAFE_WEIGHTS_NAME, save(trained, metadata={"format": "pt"}))

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """The optimiser."""
        if self.optimizer is None and self.make_optimizer is not None:
            trained: Any = model if model is not None else self.model
            self.optimizer = self.make_optimizer(trained, *self.get_optimizer_cls_and_kwargs(self.args, trained))
        return super().create_optimizer(model)  # pyright: ignore[reportArgumentType]

    def sample_losses(self) -> list[SampleLoss]:
        """The loss of each validation example with the weights as they are; every process computes all of them."""
        examples: Any = self.eval_dataset
        starts = range(0, len(examples), self.args.eval_batch_size)
        batches = (self.data_collator(examples[start : start + self.args.eval_batch_size]) for start in starts)
        with self.compute_loss_context_manager():
            model: Any = self.model_wrapped
            return sample_losses(model, (self._prepare_inputs(batch) for batch in batches))

    def evaluate(self, *_given: Any, metric_key_prefix: str = "eval", **_options: Any) -> dict[str, float]:
        """Log the validation loss of the weights as they are."""
        metrics = {f"{metric_key_prefix}_loss": mean_over_tokens(self.sample_losses())}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _dataset(examples: Sequence[Any], arguments: TrainingArguments, visited_steps: int | None) -> Any:
    if visited_steps is None:
        return list(examples)
    arguments.max_steps = visited_steps
    return Visits(examples, seed=arguments.data_seed or 0, count=visited_steps * _samples_a_step(arguments))


def _samples_a_step(arguments: TrainingArguments) -> int:
    return arguments.train_batch_size * arguments.world_size * arguments.gradient_accumulation_steps


def forget_after(metrics_path: Path, *, step: int) -> None:
    """Drop the metrics logged after `step`, which the resumed run logs again, and a half-written line."""
    if metrics_path.exists():
        kept = [line for line in _read_metrics(metrics_path) if line["step"] <= step]
        write_atomically(metrics_path, "".join(json.dumps(line) + "\n" for line in kept))


def mean_loss(metrics_path: Path) -> float | None:
    """The mean training loss of all steps: each logged one is the mean of the steps since the one before."""
    logged = [(line["step"], line["loss"]) for line in _read_metrics(metrics_path) if "loss" in line]
    starts = [0, *(step for step, _ in logged)]
    total = sum((step - start) * loss for start, (step, loss) in zip(starts, logged, strict=False))
    return total / starts[-1] if logged else None


class WriteMetrics(TrainerCallback):
    """Appends what the Trainer logs to a file, one JSON object a line; each checkpoint ends with a line of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log where a checkpoint is saved and at the end, so that no step's loss is lost to an interruption."""
        control.should_log = control.should_log or control.should_save or state.global_step >= state.max_steps

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write one line; the Trainer's closing summary is left out, since it knows only this process's part."""
        logs = kwargs.get("logs") or {}
        if state.is_world_process_zero and "train_runtime" not in logs:
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": state.global_step, **logs}) + "\n")


def _steps_done(trainer: Trainer, checkpoint: Path | None) -> int | None:
    """All steps, if the checkpoint is the last one, whose weights (or the best ones) are then loaded; else None.

    transformers 5.23 would do one step more than there are.
    """
    state = read_state(checkpoint) if checkpoint else None
    if checkpoint is None or state is None or state.global_step < state.max_steps:
        return None
    best = f"checkpoint-{state.best_global_step}" if trainer.args.load_best_model_at_end else checkpoint.name
    trainer._load_from_checkpoint(str(checkpoint.with_name(best)))
    trainer.state = state
    return state.global_step


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the metrics."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.split("\n") if line]
