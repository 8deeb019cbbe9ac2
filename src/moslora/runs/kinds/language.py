"""Runs of language models: text in, text out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.adapter.heads import Head
from moslora.adapter.verification import token_probe
from moslora.data.everyday import everyday, without_question
from moslora.data.packing import check_packing
from moslora.data.prompts import CHAT, PROMPTS, STYLES, prompt_ids
from moslora.data.tasks import EVERYDAY
from moslora.data.template_choice import take_saved
from moslora.data.tokens import pad_token_id
from moslora.data.vocabulary import Vocabulary
from moslora.evaluation.scores import Answer, SampleAnswer
from moslora.records import EvaluationRecord, LossRecord
from moslora.runs.groups import ModelSettings
from moslora.runs.kinds import Asked, Kind
from moslora.runs.kinds.language_material import LanguageSources, read_sources, tokenise
from moslora.runs.kinds.language_tasks import load_test_sets, score_task, ways_of
from moslora.runs.kinds.speaking import Speaker
from moslora.runs.language_settings import DataSettings, EvaluationSettings, LanguageRecipe
from moslora.runs.material import Material, TestSet, spread_indices
from moslora.runs.models import LANGUAGE_MODEL, load_tokenizer
from moslora.training.language import collator
from moslora.training.trainer import Collate

QUESTION_REMOVED = "question removed"


class Language(Kind):
    """Text: instructions, chats, and questions with options."""

    head: ClassVar[Head] = LANGUAGE_MODEL
    sees_pictures: ClassVar[bool] = False
    prompts: ClassVar[tuple[str, ...]] = STYLES
    example_task: ClassVar[str] = EVERYDAY

    def load_processor(self, settings: ModelSettings, *, saved: Path | None = None) -> PreTrainedTokenizerBase:
        """The model's tokenizer, with the chat template that was saved with what was trained."""
        tokenizer = load_tokenizer(settings)
        if saved is not None:
            take_saved(tokenizer, saved)
        return tokenizer

    def untrained_prompt(self, settings: ModelSettings) -> str:
        """The chat template of a model that has one; else the question as it is."""
        return CHAT if load_tokenizer(settings).chat_template else "plain"

    def parts(self, model: nn.Module) -> dict[str, str]:
        """A language model is one whole."""
        return {}

    def read(self, recipe: LanguageRecipe) -> LanguageSources:
        """The samples of every source, and the tasks' questions."""
        return read_sources(recipe)

    def material(
        self, recipe: LanguageRecipe, sources: LanguageSources, processor: PreTrainedTokenizerBase, *, on_meta: Any
    ) -> Material:
        """The samples as token ids, none of which the model lacks."""
        vocabulary = Vocabulary.of(processor, on_meta)
        vocabulary.check_indices(recipe.adapter.options.get("trainable_token_indices"))
        return tokenise(recipe, sources, processor, vocabulary=vocabulary)

    def check_model(self, recipe: LanguageRecipe, model: Any) -> None:
        """With packing, samples in one row must not see each other."""
        if recipe.data.packing:
            check_packing(model)

    def collator(self, model: nn.Module, processor: PreTrainedTokenizerBase) -> Collate:
        """Padded rows of tokens."""
        return collator(model, pad_token_id=pad_token_id(processor))

    def test_sets(self, settings: EvaluationSettings, data: DataSettings | None = None) -> list[TestSet]:
        """The tasks' questions, and held-out samples, which are read as the training samples in `data`."""
        return load_test_sets(settings, data)

    def ways_of(self, task: Any, settings: EvaluationSettings) -> list[str]:
        """Questions with options are scored in two ways, all others in one."""
        return ways_of(task, settings.scoring, settings.ways)

    def asked(self, test_set: TestSet, settings: EvaluationSettings, *, when: str) -> list[Asked]:
        """All questions; of `everyday` without the question too; some in the other way of scoring."""
        everything = list(range(len(test_set.samples)))
        own, *others = self.ways_of(test_set.task, settings)
        wanted = [Asked(when, own, everything)]
        if when == "after" and settings.question_removed and test_set.task.name == EVERYDAY:
            wanted.append(Asked(QUESTION_REMOVED, own, everything))
        if when == "after" and settings.agreement_questions:
            chosen = spread_indices(len(everything), settings.agreement_questions)
            wanted += [Asked(when, way, chosen) for way in others]
        return wanted

    def evaluate(
        self,
        model: nn.Module,
        processor: PreTrainedTokenizerBase,
        samples: Sequence[Any],
        *,
        task: Any,
        when: str,
        scoring: str,
        prompt: str,
        batch_size: int,
        progress: bool,
    ) -> tuple[EvaluationRecord | LossRecord, Sequence[Answer | SampleAnswer]]:
        """A choice by log-probability, or by the paper's protocol of generating; short answers; losses."""
        asked = [without_question(sample) for sample in samples] if when == QUESTION_REMOVED else samples
        return score_task(
            model,
            processor,
            asked,
            task=task,
            when=when,
            scoring=scoring,
            prompt=prompt,
            batch_size=batch_size,
            progress=progress,
        )

    def probe(self, processor: PreTrainedTokenizerBase, model: Any, *, prompt: str | None) -> dict[str, torch.Tensor]:
        """Four real questions, cut to one length: what a model says at padding means nothing."""
        samples: list[dict[str, Any]] = [*everyday("test")]
        ids = prompt_ids(samples[:: len(samples) // 4], processor, style=prompt or PROMPTS[0])
        shortest = min(map(len, ids))
        tokens = torch.tensor([row[:shortest] for row in ids])
        if model is None:
            return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        return token_probe(model, tokens)

    def speaker(self, model: Any, processor: PreTrainedTokenizerBase, *, prompt: str, **options: Any) -> Speaker:
        """What answers in text, and holds chats."""
        return Speaker(model, processor, style=prompt, **options)
