"""What a language model's runs are scored on: built-in tasks and files of one's own, each sort in its own way."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.data.fields import FIELDS, with_columns, with_system
from moslora.data.probing import sees_left_padding
from moslora.data.prompts import CHAT, NONE, PROMPTS, prompt_ids
from moslora.data.reading import Reading
from moslora.data.short_files import ShortTask
from moslora.data.source import task_samples
from moslora.data.task_fields import Fields
from moslora.data.task_files import HeldOut, read_task
from moslora.data.task_names import HARNESS, task_name
from moslora.data.tasks import Task, task
from moslora.data.tokens import pad_token_id
from moslora.data.vocabulary import Vocabulary
from moslora.errors import MosloraError
from moslora.evaluation.answers import Answer, SampleAnswer
from moslora.evaluation.choice import score_by_generation, score_by_log_probability
from moslora.evaluation.held_out import loss_record
from moslora.evaluation.inference import evaluation_mode, input_device, length_batches
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.short_answers import RULE, score_short_answers
from moslora.launch import gathered
from moslora.records import EvaluationRecord, LossRecord
from moslora.runs.kinds.harness_tasks import HarnessTask, load_harness_task, score_harness_task
from moslora.runs.kinds.language_examples import Made, Source, make_examples, read_source
from moslora.runs.language_settings import DataSettings, EvaluationSettings
from moslora.runs.material import TestSet
from moslora.training.language import collator
from moslora.training.validation import SampleLoss, mean_over_tokens, sample_losses

GENERATION, LOSS = "generation", "loss"
LONGEST_TOKENS = 2048  # of held-out samples, where no recipe says how long samples are


@dataclass(frozen=True)
class HeldOutTask:
    """Samples as for training, whose loss is measured; `data` says how they are read, `reading` where they stand."""

    name: str
    data: DataSettings
    reading: Reading

    @property
    def unit(self) -> str:
        """What is scored as one."""
        return "document" if self.data.format == "text" else "sample"


def load_test_sets(settings: EvaluationSettings, data: DataSettings | None) -> list[TestSet]:
    """The test sets of the tasks; held-out samples are read, and questions are asked, as `data` has it, if it is given.

    Raises DataError for one that is not there or has a wrong sample.
    """
    return [_test_set(written, settings, data) for written in settings.tasks]


def _test_set(written: str, settings: EvaluationSettings, data: DataSettings | None) -> TestSet:
    named, system = task_name(written), data.system if data else None
    if named.spec is not None:
        return TestSet(*load_harness_task(named.spec, name=named.name, limit=settings.limit))
    if named.path is None:
        known = task(named.name)
        samples = task_samples(known, settings.data, split="test", limit=settings.limit)
        return TestSet(known, with_system(samples, system))
    skips_bad = data is not None and data.on_bad == "skip"
    how: dict[str, Any] = {"sort": named.sort, "limit": settings.limit, "skips_bad": skips_bad}
    found, samples = read_task(named.path, name=named.name, columns=data.columns if data else None, **how)
    if isinstance(found, HeldOut):
        read_as = _read_as(found, data)
        if found.format is None:
            columns = read_as.columns | Fields(samples).columns(read_as.columns)
            samples = with_columns(samples, columns, source=str(found.path))
        remarks = [*found.reading.remarks, *(_trained_on(found.name, samples, read_as) if data else [])]
        return TestSet(HeldOutTask(found.name, read_as, found.reading), samples, remarks)
    return TestSet(found, with_system(samples, system))


def _trained_on(name: str, samples: Sequence[Mapping[str, Any]], data: DataSettings) -> list[str]:
    """A remark on samples that are among those to train on; none where the sources are not there any more."""
    fields = FIELDS[data.format]

    def told(sample: Mapping[str, Any]) -> str:
        return json.dumps([sample.get(field) or None for field in fields], default=str)

    try:
        known = {told(sample) for source in data.sources for sample in read_source(source, data).samples}
    except MosloraError:
        return []
    same = sum(told(sample) in known for sample in samples)
    if not same:
        return []
    return [f"{name}: {same} of {len(samples)} samples are trained on too, so the loss looks better than it is"]


def _read_as(found: HeldOut, data: DataSettings | None) -> DataSettings:
    """How held-out samples are read: as those for training, but for a format that their fields tell to be another."""
    changes: dict[str, Any] = {"format": found.format} if found.format else {}
    if data is None:
        learned = "sequence" if found.format == "text" else "response"
        given = {"train": str(found.path), "loss_on": learned, "max_length_tokens": LONGEST_TOKENS}
        return DataSettings.model_validate(given | changes)
    return data.model_copy(update=changes)


def ways_of(task: Any, scoring: str, ways: Sequence[str]) -> list[str]:
    """How a task may be scored, the settings' own way first; short answers and held-out samples have one way each."""
    if isinstance(task, HarnessTask):
        return [HARNESS]
    if isinstance(task, ShortTask):
        return [GENERATION]
    return [LOSS] if isinstance(task, HeldOutTask) else [scoring, *(way for way in ways if way != scoring)]


def check_test_set(
    test_set: TestSet, tokenizer: PreTrainedTokenizerBase, *, prompt: str, vocabulary: Vocabulary
) -> list[str]:
    """Refuse questions and samples that cannot become tokens, or have some that the model lacks.

    Returns notes on how held-out samples are read, and on those that are left out, if there are such.
    """
    samples = test_set.samples
    if isinstance(test_set.task, HarnessTask):
        return []
    if isinstance(test_set.task, HeldOutTask):
        made = _examples(samples, tokenizer, task=test_set.task, prompt=prompt, vocabulary=vocabulary)
        return [*test_set.notes, *made.warnings]
    ids = prompt_ids(samples[:1] if vocabulary.is_enough else samples, tokenizer, style=prompt)
    vocabulary.check(ids, place=f"{test_set.task.name}: question")
    return []


def score_task(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Mapping[str, Any]],
    *,
    task: Task | ShortTask | HeldOutTask | HarnessTask,
    when: str,
    scoring: str,
    prompt: str,
    batch_size: int,
    progress: bool,
) -> tuple[EvaluationRecord, list[Answer]] | tuple[LossRecord, list[SampleAnswer]]:
    """The numbers of a task scored once, and what the model made of each sample."""
    started = time.perf_counter()
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    given: dict[str, Any] = {"task": task.name, "when": when, "prompt": prompt}
    if isinstance(task, HeldOutTask):
        losses = held_out_losses(model, tokenizer, samples, task=task, prompt=prompt, **how)
        seconds = time.perf_counter() - started
        return loss_record(losses, wall_seconds=seconds, learned=task.data.loss_on, **given), losses
    rule = None
    if isinstance(task, HarnessTask):
        answers = score_harness_task(model, tokenizer, len(samples), task=task, prompt=prompt, batch_size=batch_size)
        rule, given["prompt"] = task.rule, prompt if prompt == CHAT else NONE
    elif isinstance(task, ShortTask):
        rule = RULE
        answers = score_short_answers(model, tokenizer, samples, prompt_style=prompt, **how)
    else:
        score = score_by_generation if scoring == GENERATION else score_by_log_probability
        answers = score(model, tokenizer, samples, task=task, prompt_style=prompt, **how)
    seconds = time.perf_counter() - started
    return evaluation_record(answers, scoring=scoring, wall_seconds=seconds, rule=rule, **given), answers


def held_out_losses(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Mapping[str, Any]],
    *,
    task: HeldOutTask,
    prompt: str,
    batch_size: int,
    progress: bool,
) -> list[SampleAnswer]:
    """The loss of each sample's learned tokens, in the samples' order; longer ones are cut, or divided, as in training.

    Raises DataError for a sample that cannot be used.
    """
    made = _examples(samples, tokenizer, task=task, prompt=prompt, vocabulary=Vocabulary.of(tokenizer, model))
    collate = collator(model, pad_token_id=pad_token_id(tokenizer))
    device, together = input_device(model), task.data.together
    found: list[tuple[int, SampleLoss]] = []
    with evaluation_mode(model):
        for batch in length_batches(
            list(enumerate(made.examples)),
            batch_size,
            length=lambda row: len(row[1]["input_ids"]),
            progress=progress,
            is_padded=not sees_left_padding(model),
        ):
            inputs = collate([example for _, example in batch])
            inputs = {name: value.to(device) if hasattr(value, "to") else value for name, value in inputs.items()}
            losses = sample_losses(model, [inputs])
            found += [(index, one) for (index, _), one in zip(batch, losses, strict=True)]
    pieces: dict[int, list[SampleLoss]] = {}
    for index, one in sorted(gathered(found), key=lambda pair: pair[0]):
        pieces.setdefault(made.numbers[index], []).append(one)
    return [_answer(number, own, samples[number].get(together) if together else None) for number, own in pieces.items()]


def _answer(number: int, pieces: Sequence[SampleLoss], group: Any) -> SampleAnswer:
    """A sample's loss from those of its pieces: the mean over all their tokens."""
    tokens = sum(piece.tokens for piece in pieces)
    return SampleAnswer(number, mean_over_tokens(pieces), tokens, None if group is None else str(group))


def _examples(
    samples: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    task: HeldOutTask,
    prompt: str,
    vocabulary: Vocabulary,
) -> Made:
    """As for training; only that samples need not say which of them belong together, and long texts are divided."""
    changes = {"together": None} | ({"prompt": prompt} if prompt in (*PROMPTS, CHAT) else {})
    changes |= {"longer": "cut"} if task.data.format == "text" else {}
    source = Source(task.reading.source, [*map(dict, samples)], task.reading)
    return make_examples(source, task.data.model_copy(update=changes), tokenizer, vocabulary=vocabulary)
