"""One recipe from data to record: what `moslora train` does, and every run of a comparison.

Read from top to bottom: everything that can be refused is checked before the model is loaded; each part of the run
leaves its numbers in `run.json` as soon as it has them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import PreTrainedTokenizerBase, TrainingArguments, set_seed

from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import method_config
from moslora.data.chat import chat_examples
from moslora.data.examples import instruction_examples
from moslora.data.packing import check_packing, pack
from moslora.data.source import load_samples
from moslora.data.tokens import Example, pad_token_id
from moslora.errors import ConfigError, DataError
from moslora.records import Parameters, RunRecord
from moslora.runs.environment import describe_machine, describe_versions, peak_memory_bytes
from moslora.runs.folder import RunFolder
from moslora.runs.models import load_model, load_tokenizer
from moslora.runs.recipe import Recipe, load_recipe
from moslora.runs.scoring import TestSet, load_test_sets, score
from moslora.training.language import TrainingResult, train

Report = Callable[[str], None]


@dataclass(frozen=True)
class Material:
    """What a run works on once its data is read: tokenised examples and test sets."""

    examples: list[Example]
    validation: list[Example]
    test_sets: list[TestSet]
    truncated: int


def run_recipe(
    recipe: Recipe,
    folder: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = lambda _line: None,
    progress: bool = True,
) -> RunRecord:
    """Train and evaluate a recipe in `folder`; returns the record that also lies there as `run.json`.

    `report` is called with a line of text at each part of the run. With `resume` an interrupted run goes on to the
    weights it would have had; a finished one is returned as it is. Raises the errors of `moslora.errors`, all but the
    model's own before the model is loaded, and KeyboardInterrupt after the checkpoint is saved.
    """
    adapter = method_config(recipe.adapter.method, recipe.adapter.options)
    place = RunFolder.create(folder, resume=resume, overwrite=overwrite, needed_bytes=2**26)
    record = _begin(recipe, place, resume=resume)
    if record.status == "finished":
        report(f"{place.path} is finished; nothing to do")
        return record
    try:
        tokenizer = load_tokenizer(recipe.model)
        material = read_material(recipe, tokenizer)
        _note(record, material)
        record.status = "running"
        record.save(place.record_path)
        _run(recipe, place, record, adapter, tokenizer, material, report=report, progress=progress)
    except KeyboardInterrupt:
        record.status = "interrupted"
        raise
    except BaseException:
        record.status = "failed"
        raise
    finally:
        record.save(place.record_path)
    return record


def read_material(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Material:
    """Training examples, validation examples and test sets. Raises DataError for what cannot be used."""
    data = recipe.data
    test_sets = load_test_sets(recipe.evaluation)
    samples = load_samples(data.train, split="train", limit=data.limit)
    options: dict[str, Any] = {
        "max_length_tokens": data.max_length_tokens,
        "loss_on": data.loss_on,
        "source": data.train,
    }
    if data.format == "chat":
        read = chat_examples(samples, tokenizer, **options)
    else:
        read = instruction_examples(samples, tokenizer, prompt_style=data.prompt, **options)
    examples, validation = _split(read.examples, data.validation_samples, seed=recipe.seed, source=data.train)
    if data.packing:
        examples = pack(examples, max_length_tokens=data.max_length_tokens)
    return Material(examples, validation, test_sets, read.truncated)


def training_arguments(recipe: Recipe, place: RunFolder, *, dtype: torch.dtype) -> TrainingArguments:
    """The recipe's training settings in transformers' terms."""
    settings = recipe.training
    is_accelerated = torch.accelerator.is_available()
    precision = settings.precision
    if precision == "auto":
        precision = (
            {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "float32") if is_accelerated else "float32"
        )
    evaluate_every = settings.evaluate_every_steps
    save_every = settings.save_every_steps or evaluate_every
    devices = max(1, torch.accelerator.device_count()) if is_accelerated else 1
    try:
        return TrainingArguments(
            output_dir=str(place.checkpoints),
            num_train_epochs=settings.epochs,
            max_steps=settings.max_steps or -1,
            per_device_train_batch_size=settings.micro_batch_size or max(1, settings.batch_size // devices),
            per_device_eval_batch_size=recipe.evaluation.batch_size,
            gradient_accumulation_steps=settings.accumulation_steps(devices=devices),
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=settings.warmup_steps if settings.warmup_ratio is None else settings.warmup_ratio,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            optim=settings.optimizer,
            activation_checkpointing=settings.gradient_checkpointing,
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            eval_strategy="steps" if evaluate_every else "no",
            eval_steps=evaluate_every,
            save_strategy="steps" if save_every else "no",
            save_steps=save_every or 500,
            save_total_limit=2,
            load_best_model_at_end=settings.keep_best,
            metric_for_best_model="loss" if settings.keep_best else None,
            logging_steps=settings.log_every_steps,
            report_to=list(settings.trackers) or "none",
            run_name=recipe.name,
            seed=recipe.seed,
            data_seed=recipe.seed,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_pin_memory=is_accelerated,
            use_cpu=not is_accelerated,
            disable_tqdm=True,
            log_level="error",
        )
    except (ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error


def _run(
    recipe: Recipe,
    place: RunFolder,
    record: RunRecord,
    adapter: PeftConfig,
    tokenizer: PreTrainedTokenizerBase,
    material: Material,
    *,
    report: Report,
    progress: bool,
) -> None:
    started = time.perf_counter()
    report(f"loading {recipe.model.path}")
    model = load_model(recipe.model)
    arguments = training_arguments(recipe, place, dtype=model.dtype)
    if recipe.data.packing:
        check_packing(model)
    scoring: dict[str, Any] = {
        "recipe": recipe,
        "place": place,
        "record": record,
        "report": report,
        "progress": progress,
    }
    score(model, tokenizer, material.test_sets, when="before", **scoring)
    set_seed(recipe.seed)  # before the adapter is drawn
    if recipe.model.quantize != "none":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=recipe.training.gradient_checkpointing
        )
    elif recipe.training.gradient_checkpointing:
        model.enable_input_require_grads()
    adapted: Any = get_peft_model(model, adapter)
    record.parameters = Parameters(**count_parameters(adapted))
    report(f"training {record.parameters.trainable:,} of {record.parameters.total:,} parameters")
    result = train(
        adapted,
        material.examples,
        arguments=arguments,
        pad_token_id=pad_token_id(tokenizer),
        validation=material.validation,
        metrics_path=place.metrics_path,
        resume=place.checkpoints.is_dir(),
        progress=progress,
    )
    _keep(adapted, tokenizer, place, record, result)
    score(adapted, tokenizer, material.test_sets, when="after", **scoring)
    record.wall_seconds["all"] = record.wall_seconds.get("all", 0.0) + time.perf_counter() - started
    record.peak_memory_bytes = max(record.peak_memory_bytes or 0, peak_memory_bytes())
    record.status = "finished"


def _begin(recipe: Recipe, place: RunFolder, *, resume: bool) -> RunRecord:
    if resume:
        record, former = place.record(), load_recipe(place.recipe_path)
        changed = [name for name, value in former.to_dict().items() if recipe.to_dict()[name] != value]
        if changed:
            raise ConfigError(
                f"{place.path} was started with other settings ({', '.join(changed)}):"
                f" resume with its own recipe ({place.recipe_path}) or train into another folder"
            )
        return record
    record = RunRecord(
        recipe=recipe.to_dict(), seed=recipe.seed, versions=describe_versions(), machine=describe_machine()
    )
    record.save(place.record_path)
    place.recipe_path.write_text(recipe.to_yaml(), encoding="utf-8")
    return record


def _note(record: RunRecord, material: Material) -> None:
    notes = [f"{len(material.examples)} training rows, {len(material.validation)} validation samples"]
    if material.truncated:
        notes.append(f"{material.truncated} samples were longer than max_length_tokens and cut")
    record.notes = notes


def _split(
    examples: Sequence[Example], validation_samples: int, *, seed: int, source: str
) -> tuple[list[Example], list[Example]]:
    if validation_samples >= len(examples):
        raise DataError(
            f"{source}: data.validation_samples {validation_samples} leaves nothing to train on of"
            f" {len(examples)} samples; set fewer apart"
        )
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = set(order[:validation_samples])
    kept = [example for index, example in enumerate(examples) if index not in held_out]
    return kept, [examples[index] for index in sorted(held_out)]


def _keep(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, place: RunFolder, record: RunRecord, result: TrainingResult
) -> None:
    model.save_pretrained(place.adapter)
    tokenizer.save_pretrained(place.adapter)
    record.artifacts["adapter"] = place.adapter.name
    record.steps, record.train_loss = result.steps, result.train_loss
    record.wall_seconds["train"] = record.wall_seconds.get("train", 0.0) + result.wall_seconds
    record.peak_memory_bytes = peak_memory_bytes()
    record.save(place.record_path)
