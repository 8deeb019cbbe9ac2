"""Runs of text-to-image models: a subject or a style is learned from a few pictures, drawn and measured."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import TrainerCallback, TrainingArguments

from moslora.adapter.heads import Head
from moslora.adapter.methods import METHODS
from moslora.adapter.pipeline_files import DIFFUSERS_FILE, save_pipeline_lora
from moslora.adapter.pipeline_folders import save_pipeline_folders
from moslora.adapter.twin import base_of
from moslora.adapter.verification import Drift
from moslora.data.photos import Photo
from moslora.emoji.scenes import render
from moslora.errors import ConfigError, python_text
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.scores import Answer
from moslora.files import new_folder
from moslora.records import EvaluationRecord
from moslora.runs.kinds import Asked, Kind
from moslora.runs.kinds.subject_drawing import Pictures, seen_by_autoencoder
from moslora.runs.kinds.subject_material import material_of, read_all
from moslora.runs.kinds.subject_measures import (
    AFTER,
    BEFORE,
    LIKENESS,
    SUBJECTS,
    UNRELATED,
    Measured,
    Task,
    Unit,
    measure,
    photos_of,
    real_values,
    scene_values,
    units_of,
)
from moslora.runs.kinds.subject_prior import FOLDER, class_shots
from moslora.runs.kinds.subject_watching import DrawWhileTraining
from moslora.runs.material import Material, Sources, TestSet
from moslora.runs.models import HEADS
from moslora.runs.pipelines import load_pipeline, load_tokenizers
from moslora.runs.subject_settings import (
    CAPTION,
    OF_SCENES,
    REAL,
    SubjectEvaluationSettings,
    SubjectModelSettings,
    SubjectRecipe,
)
from moslora.training.diffusion import TextToImage
from moslora.training.layouts import prompt_ids
from moslora.training.shots import Batches, Encoder, kept_conditions
from moslora.training.trainer import Collate

FILES = {"diffusers": DIFFUSERS_FILE, "kohya": "kohya_lora.safetensors"}
PICTURES = "pictures"  # of a run: what was drawn, by when
PROBED_LATENTS = 16  # across, which every denoiser can halve as often as it does
PROBED_PROMPTS = ("a photo of a red car by the sea", "two cats on a chair")


class Tokenizers(dict[str, Any]):
    """The tokenizer of each text encoder, by the encoder's name."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Nothing is written: a pipeline keeps its own tokenizers, and an adapter changes none."""


class Subject(Kind):
    """Pictures with captions; what is drawn is measured."""

    def __init__(self) -> None:
        self.drawn = Pictures()
        self.photos: list[Photo] = []

    head: ClassVar[Head] = HEADS["subject"]
    sees_pictures: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    loss_is_of_tokens: ClassVar[bool] = False
    unit: ClassVar[str] = "picture"
    prompts: ClassVar[tuple[str, ...]] = (CAPTION,)
    example_task: ClassVar[str] = SUBJECTS
    fold_formats: ClassVar[tuple[str, ...]] = (*FILES, "peft")
    library: ClassVar[str] = "diffusers"
    outputs: ClassVar[str] = "latents"
    probed: ClassVar[str] = "prompts"

    def load_processor(self, settings: SubjectModelSettings, *, saved: Path | None = None) -> Tokenizers:
        """The model's tokenizers."""
        return Tokenizers(load_tokenizers(settings))

    def parts(self, model: nn.Module) -> dict[str, str]:
        """The denoiser and the text encoders, under the pipeline's names."""
        return {name: name for name, _ in base_of(model).named_children()}

    def read(self, recipe: SubjectRecipe) -> Sources:
        """The pictures of every source, and what is to be drawn for each measure."""
        return Sources(read_all(recipe.data), self.test_sets(recipe.evaluation))

    def material(self, recipe: SubjectRecipe, sources: Sources, processor: Tokenizers, *, on_meta: Any) -> Material:
        """The pictures cut to shape, their captions as token ids."""
        needing = [test_set.task.name for test_set in sources.test_sets if test_set.task.needs_base]
        if needing and METHODS[recipe.adapter.method].config_class is None:
            raise ConfigError(
                f"method '{recipe.adapter.method}' leaves no untrained model to compare pictures with: take"
                f" {', '.join(needing)} out of evaluation.tasks"
            )
        return material_of(recipe, sources, processor)

    def check_model(self, recipe: SubjectRecipe, model: Any) -> None:
        """Min-SNR weighting is for models that have a signal-to-noise ratio."""
        model.schedule.weight(model.schedule.timestep(0.5), min_snr_gamma=recipe.training.min_snr_gamma)

    @contextmanager
    def batches(
        self,
        recipe: SubjectRecipe,
        model: nn.Module,
        processor: Tokenizers,
        rows: Sequence[Any],
        *,
        arguments: TrainingArguments,
        progress: bool,
    ) -> Iterator[Collate]:
        """Batches of visits; captions are read once where no text encoder learns."""
        base: TextToImage = base_of(model)
        folder = Path(recipe.data.class_folder or Path(str(arguments.output_dir)).parent / FOLDER)
        beside = class_shots(recipe, model, processor, folder=folder, progress=progress)
        trained = [name for name, p in base.named_parameters() if p.requires_grad]
        is_read_once = not any(name.startswith(tuple(f"{one}." for one in base.encoders)) for name in trained)
        yield Batches(
            base,
            Encoder(base, keeps=recipe.data.cache),
            seed=recipe.seed,
            beside=beside,
            prior_weight=recipe.training.prior_weight,
            min_snr_gamma=recipe.training.min_snr_gamma,
            conditions=kept_conditions(base, [*rows, *beside]) if is_read_once else None,
            is_random=recipe.data.crop == "random",
            may_flip=recipe.data.flip,
        )

    def collator(self, model: nn.Module, processor: Tokenizers) -> Collate:
        """Batches whose captions are read each time."""
        base = base_of(model)
        return Batches(base, Encoder(base, keeps=False), seed=0)

    def watchers(self, recipe: SubjectRecipe, model: nn.Module, *, folder: Path) -> list[TrainerCallback]:
        """Pictures every so many steps, of the first prompts."""
        every, settings = recipe.training.draw_every_steps, recipe.evaluation
        if every is None:
            return []
        units = units_of(Task("", settings.model_copy(update={"seeds": 1})))[: recipe.training.draw_prompts]
        requests = [unit.request for unit in units]
        how = {"every": every, "folder": folder / PICTURES, "batch_size": settings.batch_size}
        return [DrawWhileTraining(model, requests, **how)]

    def test_sets(self, settings: SubjectEvaluationSettings, data: Any = None) -> list[TestSet]:
        """What is drawn, for each measure."""
        tasks = [Task(name, settings) for name in settings.tasks]
        return [TestSet(task, units_of(task)) for task in tasks]

    def asked(self, test_set: TestSet, settings: SubjectEvaluationSettings, *, when: str) -> list[Asked]:
        """All pictures; after training also what real pictures reach. Before it nothing can have drifted."""
        everything = list(range(len(test_set.samples)))
        if when == BEFORE and test_set.task.name == LIKENESS:
            return []
        wanted = [Asked(when, settings.scoring, everything)]
        if when == AFTER and settings.real_pictures and test_set.task.has_real:
            wanted.append(Asked(REAL, settings.scoring, everything))
        return wanted

    def evaluate(
        self,
        model: nn.Module,
        processor: Tokenizers,
        samples: Sequence[Unit],
        *,
        task: Task,
        when: str,
        scoring: str,
        prompt: str,
        batch_size: int,
        progress: bool,
    ) -> tuple[EvaluationRecord, list[Answer]]:
        """Draw, and measure what was drawn; each picture is drawn once for all measures."""
        started = time.perf_counter()
        self.photos = photos_of(task.settings) if task.settings.photos else []
        if when == REAL:
            found = self._real(model, samples, task=task)
        else:
            how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
            requests = [unit.request for unit in samples]
            own = f" {UNRELATED}" if task.name == LIKENESS else ""  # prompts of another list
            drawn = self.drawn.of(model, requests, when=when + own, **how)
            base = self.drawn.of(model, requests, when=BEFORE + own, is_plain=True, **how) if task.needs_base else []
            found = measure(task, samples, drawn, base)
        seconds = time.perf_counter() - started
        given: dict[str, Any] = {"task": task.name, "when": when, "scoring": scoring, "prompt": prompt}
        given |= {"rule": found.rule, "unit": self.unit}
        return evaluation_record(found.answers, wall_seconds=seconds, **given), found.answers

    def _real(self, model: nn.Module, samples: Sequence[Unit], *, task: Task) -> Measured:
        """What the subject's photos reach, or scenes as they are drawn by their artists, seen by the autoencoder."""
        if task.name not in OF_SCENES:
            return real_values(task, samples)
        images = [render(unit.scene, seed=unit.request.seed) for unit in samples]
        return scene_values(task, samples, [*seen_by_autoencoder(base_of(model), images)])

    def keep(self, folder: Path, *, when: str) -> None:
        """The pictures that were drawn, and the subject's own in small."""
        self.drawn.keep(folder / PICTURES, photos=self.photos)

    def write_folded(
        self,
        settings: SubjectModelSettings,
        model: nn.Module,
        processor: Tokenizers,
        folder: Path,
        *,
        format: str,
        probe: Mapping[str, Any],
        allow_drift: bool,
    ) -> Drift:
        """Write one LoRA file, or PEFT's folder a part, that a plain pipeline was proved to draw the same with.

        As `save_pipeline_lora` and `save_pipeline_folders`.
        """
        given: dict[str, Any] = {"load_pipeline": partial(load_pipeline, settings), "allow_drift": allow_drift}
        if format == "peft":
            return save_pipeline_folders(model, folder, **given)
        with new_folder(folder) as staged:
            return save_pipeline_lora(model, staged / FILES[format], format=format, **given)

    def folded_code(self, base: str, folder: Path, *, class_name: str) -> str:
        """diffusers' own way of one file, PEFT's of a folder a part."""
        pipe = f"from diffusers import {class_name}; pipe = {base};"
        name = next((path.name for path in folder.glob("*.safetensors")), None)
        if name is not None:
            return f"{pipe} pipe.load_lora_weights({python_text(folder)}, weight_name={python_text(name)})"
        parts = sorted(path.parent for path in folder.glob("*/adapter_config.json"))
        return f"from peft import PeftModel; {pipe} " + "; ".join(
            f"pipe.{part.name} = PeftModel.from_pretrained(pipe.{part.name}, {python_text(part)}).base_model.model"
            for part in parts
        )

    def probe(self, processor: Tokenizers, model: Any, *, prompt: str | None) -> dict[str, Any]:
        """Two prompts, and noise that is a few latents across, at two places on the schedule."""
        base: TextToImage = base_of(model)
        schedule: Any = base.schedule
        generator = torch.Generator().manual_seed(0)
        side, channels = PROBED_LATENTS, base.denoiser.config.in_channels
        ids = [prompt_ids(text, processor, base.layout).by_encoder for text in PROBED_PROMPTS]
        found: dict[str, Any] = {
            "noisy": torch.randn(len(ids), channels, side, side, generator=generator),
            "timesteps": torch.tensor([schedule.timestep(place) for place in (0.25, 0.75)]),
            "ids": {name: torch.tensor([own[name] for own in ids]) for name in ids[0]},
        }
        sizes = torch.tensor([[side * 8, side * 8, 0, 0, side * 8, side * 8]] * len(ids))
        return found | ({"sizes": sizes} if base.layout.has_sizes else {})
