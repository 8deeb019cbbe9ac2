"""Opening what a command is given, a run or the folder of an adapter, together with its base model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from moslora.adapter.storage import check_adapter_folder
from moslora.data.everyday import everyday
from moslora.data.prompts import prompt_ids
from moslora.data.tokens import pad_token_id
from moslora.errors import CheckpointError
from moslora.evaluation.inference import left_padded
from moslora.runs.folder import RunFolder
from moslora.runs.models import load_model, load_tokenizer
from moslora.runs.recipe import ModelSettings, Recipe, load_recipe


@dataclass(frozen=True)
class Opened:
    """An adapter's folder, the settings of its base model, and the run it came from, if any."""

    adapter: Path
    model: ModelSettings
    run: RunFolder | None = None
    recipe: Recipe | None = None

    @property
    def home(self) -> Path:
        """Where exports lie by default."""
        return self.run.path if self.run else self.adapter

    @property
    def prompt_style(self) -> str:
        """The prompt the adapter was trained with."""
        return self.recipe.data.prompt if self.recipe else "alpaca"


def open_adapter(source: str | Path, *, base: str | None = None) -> Opened:
    """A run's folder, or an adapter's, checked; `base` names another base model than the recorded one.

    Raises CheckpointError for a folder that is neither, or whose files are damaged.
    """
    source = Path(source)
    if (source / "run.json").is_file():
        run = RunFolder.open(source)
        if not run.adapter.is_dir():
            raise CheckpointError(f"{source} has no trained adapter yet: finish it with `moslora train ... --resume`")
        recipe = load_recipe(run.recipe_path)
        check_adapter_folder(run.adapter)
        model = recipe.model.model_copy(update={"path": base}) if base else recipe.model
        return Opened(run.adapter, model, run, recipe)
    check_adapter_folder(source)
    recorded = json.loads((source / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not (base or recorded):
        raise CheckpointError(f"{source} does not say which base model it belongs to: give it with --base")
    return Opened(source, ModelSettings(path=base or recorded))


def load_adapted(opened: Opened) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """The base model with the adapter, in evaluation mode, and its tokenizer."""
    tokenizer = load_tokenizer(opened.model)
    model = PeftModel.from_pretrained(load_model(opened.model), str(opened.adapter))
    return model.eval(), tokenizer


def text_probe(opened: Opened, tokenizer: PreTrainedTokenizerBase, *, rows: int = 4) -> dict[str, torch.Tensor]:
    """A few real questions as a padded batch, to compare models on."""
    samples: list[dict[str, Any]] = [*everyday("test")[:: 384 // rows]][:rows]
    ids = prompt_ids(samples, tokenizer, style=opened.prompt_style)
    batch = left_padded(ids, pad=pad_token_id(tokenizer), device=torch.device("cpu"))
    return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "position_ids": batch.position_ids}
