"""Runs of vision-language models: pictures and text in, text out; the language model and the tower carry adapters."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, TrainingArguments

from moslora.adapter.heads import Head
from moslora.adapter.part_layers import LANGUAGE, VISION, part_of, parts_in
from moslora.adapter.twin import base_of
from moslora.data.images import ImageHeader, blank, check_image, open_image
from moslora.data.prompts import CHAT
from moslora.data.references import MARKER
from moslora.data.tokens import pad_token_id
from moslora.data.vision_tasks import Question, VisionTask, options_only
from moslora.data.vocabulary import Vocabulary
from moslora.errors import ConfigError, DataError
from moslora.evaluation.asking import Prompt
from moslora.evaluation.asking import answers as ask
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.scores import Answer
from moslora.evaluation.vision import Rule
from moslora.evaluation.vision import rule as rule_of
from moslora.records import EvaluationRecord
from moslora.runs.kinds import Asked, Kind
from moslora.runs.kinds.picture_speaking import PictureSpeaker
from moslora.runs.kinds.vision_caching import check_cacheable, features_of
from moslora.runs.kinds.vision_examples import examples_of
from moslora.runs.kinds.vision_material import load_test_sets, question_ids, read_sources, rows_of
from moslora.runs.kinds.vision_scoring import scored
from moslora.runs.material import Material, Sources, TestSet
from moslora.runs.models import HEADS, resolve_model
from moslora.runs.processors import check_same_processing, describe_processor, load_processor, picture_text, placeholder
from moslora.runs.vision_settings import VisionEvaluationSettings, VisionModelSettings, VisionRecipe
from moslora.training.cached_tower import cached_tower
from moslora.training.trainer import Collate
from moslora.training.vision_language import GREY, See, collator, inputs_beside, pictures_of, weigh_tokens_alike

PICTURE_BLANKED, QUESTION_REMOVED = "picture blanked", "question removed"


class VisionLanguage(Kind):
    """Conversations with pictures, and questions about pictures."""

    head: ClassVar[Head] = HEADS["vision_language"]
    sees_pictures: ClassVar[bool] = True
    prompts: ClassVar[tuple[str, ...]] = (CHAT,)
    example_task: ClassVar[str] = "easy-vqa"

    def load_processor(self, settings: VisionModelSettings, *, saved: Path | None = None) -> Any:
        """The model's processor, which agrees with its configuration, and with the one saved in a trained folder.

        Where no recipe says how pictures are padded, the saved one does.
        """
        config = AutoConfig.from_pretrained(resolve_model(settings.path), revision=settings.revision)
        has_own = saved is not None and (saved / "processor_config.json").is_file()
        was = load_processor(str(saved), config) if has_own else None
        if was is not None and "padding" not in settings.model_fields_set:
            return was
        processor = load_processor(settings.path, config, pad=settings.padding, revision=settings.revision)
        if was is not None:
            check_same_processing(describe_processor(was), describe_processor(processor))
        return processor

    def parts(self, model: nn.Module) -> dict[str, str]:
        """The language model, the vision tower and the projector between them."""
        return parts_in(base_of(model))

    def read(self, recipe: VisionRecipe) -> Sources:
        """The conversations of every source, and the tasks' questions."""
        return read_sources(recipe)

    def material(self, recipe: VisionRecipe, sources: Sources, processor: Any, *, on_meta: Any) -> Material:
        """The conversations as token ids and pictures; one must have a picture if that is to train a part."""
        for test_set in sources.test_sets:
            _rule(test_set.task)
            _check_pictures(test_set)
        sets = sources.test_sets
        if recipe.evaluation.question_removed and sets and not any(map(_has_options, sets)):
            raise ConfigError(
                f"evaluation.question_removed would do nothing: no question of {', '.join(recipe.evaluation.tasks)} has"
                " options; set it to false"
            )
        if recipe.data.cache_features:
            check_cacheable(on_meta, self.parts(on_meta)[VISION])
        found = rows_of(recipe, sources, processor, vocabulary=Vocabulary.of(processor.tokenizer, on_meta))
        if not found.complete_share and (idle := self._trained(on_meta) - {LANGUAGE}):
            raise DataError(
                f"{', '.join(recipe.data.sources)}: no training sample has a picture, so {' and '.join(sorted(idle))}"
                " would not be trained: add samples with pictures, or leave vision out of adapter.parts and set"
                " adapter.projector: frozen"
            )
        return found

    def _trained(self, model: nn.Module) -> set[str]:
        """The parts of which anything is set to be trained."""
        parts = self.parts(model)
        trained = (name for name, parameter in base_of(model).named_parameters() if parameter.requires_grad)
        return {part for name in trained if (part := part_of(name, parts))}

    def check_model(self, recipe: VisionRecipe, model: Any) -> None:
        """All that can be refused shows without the weights."""

    @contextmanager
    def batches(
        self,
        recipe: VisionRecipe,
        model: nn.Module,
        processor: Any,
        rows: Sequence[Any],
        *,
        arguments: TrainingArguments,
        progress: bool,
    ) -> Iterator[Collate]:
        """Rows with their pictures' pixels, or with the features that the tower gives for them, computed once."""
        weigh_tokens_alike(model)
        if not recipe.data.cache_features:
            yield self.collator(model, processor)
            return
        tower = self.parts(model)[VISION]
        features = features_of(model, processor, tower=tower, arguments=arguments)
        size = arguments.per_device_eval_batch_size
        features.fill(pictures_of(rows), batch_size=size, progress=progress)
        with cached_tower(model, tower, features):
            yield self.collator(model, processor, see=features)

    def collator(self, model: nn.Module, processor: Any, *, see: See | None = None) -> Collate:
        """Padded rows of tokens, and their pictures' pixels, or what else `see` gives of them."""
        grey = picture_text(processor, width=GREY.width, height=GREY.height)
        return collator(
            model,
            processor,
            pad_token_id=pad_token_id(processor.tokenizer),
            image_token_id=placeholder(processor)[1],
            grey_ids=processor.tokenizer.encode(grey, add_special_tokens=False),
            learns_from_text=LANGUAGE in self._trained(model),
            see=see,
        )

    def test_sets(self, settings: VisionEvaluationSettings, data: Any = None) -> list[TestSet]:
        """The tasks' questions."""
        return load_test_sets(settings)

    def asked(self, test_set: TestSet, settings: VisionEvaluationSettings, *, when: str) -> list[Asked]:
        """All questions; after training also the controls: without the picture, and without picture and question."""
        everything = list(range(len(test_set.samples)))
        wanted = [Asked(when, settings.scoring, everything)]
        if when == "after" and settings.picture_blanked:
            wanted.append(Asked(PICTURE_BLANKED, settings.scoring, everything))
        if when == "after" and settings.question_removed:
            chosen = [index for index in everything if test_set.samples[index].options_prompt is not None]
            wanted += [Asked(QUESTION_REMOVED, settings.scoring, chosen)] if chosen else []
        return wanted

    def evaluate(
        self,
        model: nn.Module,
        processor: Any,
        samples: Sequence[Question],
        *,
        task: VisionTask,
        when: str,
        scoring: str,
        prompt: str,
        batch_size: int,
        progress: bool,
    ) -> tuple[EvaluationRecord, list[Answer]]:
        """The texts that the model answers with, scored by the task's rule."""
        started, rule = time.perf_counter(), _rule(task)
        asked = [options_only(question) for question in samples] if when == QUESTION_REMOVED else samples
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
        texts = answer_all(model, processor, asked, task=task, is_blanked=when == PICTURE_BLANKED, **how)
        answers = scored(asked, texts, rule=rule)
        seconds = time.perf_counter() - started
        given: dict[str, Any] = {"task": task.name, "when": when, "scoring": scoring, "prompt": prompt}
        return evaluation_record(answers, wall_seconds=seconds, rule=rule.record, **given), answers

    def examples(
        self, test_set: TestSet, answered: Callable[[str], Sequence[Answer]], *, when: str
    ) -> list[dict[str, Any]]:
        """Questions with their pictures, and what was answered without these."""
        return examples_of(test_set.samples, answered, when=when, control=PICTURE_BLANKED)

    def probe(self, processor: Any, model: Any, *, prompt: str | None) -> dict[str, torch.Tensor]:
        """Two pictures and two texts without one, as rows of one length: a text says nothing of the tower."""
        pictures = [_pattern(number) for number in range(2)]
        headers = [ImageHeader(picture.width, picture.height) for picture in pictures]
        seen = [question_ids(f"{MARKER}\nDescribe the picture.", processor, headers=[one]) for one in headers]
        length = min(map(len, seen))
        words = question_ids("Tell a story of a lighthouse, a storm and a lost boat. " * length, processor, headers=[])
        rows = torch.tensor([*(ids[:length] for ids in seen), words[:length], words[1 : length + 1]])
        number = placeholder(processor)[1]
        beside = inputs_beside(pictures, rows, model=model, processor=processor, image_token_id=number)
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows), **beside}

    def speaker(self, model: Any, processor: Any, *, prompt: str, **options: Any) -> Any:
        """What answers in text about pictures."""
        return PictureSpeaker(model, processor, **options)


def answer_all(
    model: nn.Module,
    processor: Any,
    questions: Sequence[Question],
    *,
    task: VisionTask,
    is_blanked: bool = False,
    batch_size: int,
    progress: bool,
) -> list[str]:
    """The texts that a model answers a task's questions with; `is_blanked` gives it grey pictures."""
    prompts = [_prompt(one, processor, is_blanked=is_blanked) for one in questions]
    Vocabulary.of(processor.tokenizer, model).check([one.ids for one in prompts], place=f"{task.name}: question")
    return ask(
        model,
        processor,
        prompts,
        see=partial(inputs_beside, model=model, processor=processor, image_token_id=placeholder(processor)[1]),
        max_new_tokens=task.max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )


def _check_pictures(test_set: TestSet) -> None:
    """Look at the headers of the questions' pictures, so that none stops a run that has been trained."""
    for question in test_set.samples:
        for image in question.images:
            check_image(image, place=f"task {test_set.task.name}: question {question.index}")


def _has_options(test_set: TestSet) -> bool:
    return any(question.options_prompt is not None for question in test_set.samples)


def _rule(task: VisionTask) -> Rule:
    if task.rule is None:
        raise ConfigError(
            f"{task.name} is scored by another model, which is not imitated here: write the answers for its program"
            " (moslora evaluate RUN --predictions FOLDER)"
        )
    return rule_of(task.rule)


def _prompt(question: Question, processor: Any, *, is_blanked: bool) -> Prompt:
    place = f"question {question.index}"
    headers = [check_image(image, place=place) for image in question.images]

    def opened() -> list[Image.Image]:
        if is_blanked:
            return [blank((one.width, one.height)) for one in headers]
        return [open_image(image, place=place) for image in question.images]

    return Prompt(question_ids(question.content, processor, headers=headers), opened)


def _pattern(number: int) -> Image.Image:
    """A picture with edges and colours everywhere."""
    values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((64, 64), Image.Resampling.BICUBIC)
