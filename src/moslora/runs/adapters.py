"""Opening what a command is given: a run or the folder of an adapter, with its base model, or a model as it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from moslora.adapter.experts import plain_layers
from moslora.adapter.heads import Head, head_of
from moslora.adapter.methods import method_config
from moslora.adapter.part_layers import PROJECTOR
from moslora.adapter.parts import ONLY, check_by_part, expand, projector_choice
from moslora.adapter.preparing import prepare_without_weights
from moslora.adapter.projector import FILE as PROJECTOR_FILE
from moslora.adapter.projector import load_projector, train_only
from moslora.adapter.storage import check_adapter_folder, load_adapter
from moslora.data.prompts import STYLES
from moslora.errors import CheckpointError, ConfigError, MosloraError, command, unknown_name
from moslora.runs.folder import RunFolder, check_there
from moslora.runs.groups import ModelSettings, Recipe
from moslora.runs.kinds import Kind, kind_of
from moslora.runs.model_names import is_hub_id
from moslora.runs.models import load_model, meta_model
from moslora.runs.origin import ORIGIN_NAME, PIPELINE_INDEX, base_noted, kind_noted, prompt_of, system_of
from moslora.runs.recipe import LANGUAGE, model_settings, parse_recipe

MOSLORA = "MOSLORA"  # PEFT's name for ours
FULL, PROJECTOR_ONLY = "FULL", "PROJECTOR"  # what stands in its place for full fine-tuning, and for a projector alone
OF_PARTS = frozenset({"parts", PROJECTOR})


@dataclass(frozen=True)
class Opened:
    """An adapter's folder, the settings of its base model, and the run it came from, if any.

    Of full fine-tuning, `adapter` is the folder of the trained model and `peft_type` is FULL; of a projector that was
    trained alone it is that folder.
    """

    adapter: Path
    model: ModelSettings
    peft_type: str
    prompt_style: str | None = None  # of questions: the run's, or what the folder notes of it
    run: RunFolder | None = None
    recipe: Recipe | None = None
    own_head: Head | None = None  # of a bare adapter, which may be of a classifier
    is_base: bool = False  # a model that nothing was trained in; `adapter` is its folder, or its name

    @property
    def described(self) -> str:
        """What it is, in a few words: what was trained, and the base model that this belongs to."""
        if self.is_base:
            return f"{self.model.path}, a base model without an adapter"
        if self.peft_type == FULL:
            return f"{self.adapter}, {'a fully trained' if self.run else 'a merged'} model"
        what = "a projector" if self.peft_type == PROJECTOR_ONLY else f"an adapter ({self.peft_type})"
        return f"{self.adapter}, {what} on {self.model.path}"

    @property
    def head(self) -> Head:
        """The class of transformers that loads the base model."""
        return self.own_head or kind_of(self.model.kind).head

    @property
    def home(self) -> Path:
        """Where exports lie by default."""
        return self.run.path if self.run else self.adapter

    @property
    def asked_with(self) -> str:
        """The prompt style. Raises ConfigError where nothing says with which one the model was trained."""
        if self.prompt_style is None:
            raise ConfigError(
                f"{self.adapter} does not say with which prompt it was trained: give --prompt-style"
                f" ({', '.join(STYLES)})"
            )
        return self.prompt_style

    @property
    def system(self) -> str | None:
        """The system message that instructions were trained with; that of chats is in the saved chat template."""
        return self.recipe.data.asked_system if self.recipe else system_of(self.adapter)


def open_adapter(
    source: str | Path, *, base: str | None = None, prompt: str | None = None, or_base: bool = False
) -> Opened:
    """A run's folder, an adapter's, or a full model's, checked; with `or_base` also a model as it is.

    `base` names another base model than the recorded one, `prompt` another style than the run's or the folder's. A base
    model is a folder, a `.gguf` file, a demo's name, or a hub id; it is asked through its chat template if it has one.

    Raises CheckpointError for a folder that is not there, that is neither, or whose files are damaged.
    """
    if prompt is not None and prompt not in STYLES:
        raise unknown_name("prompt style", prompt, STYLES)
    open_as = _opened_base if or_base and _is_base(str(source)) else _opened
    if open_as is _opened:
        check_there(source)
    opened = open_as(Path(source), base=base, prompt=prompt)
    styles = kind_of(opened.model.kind).prompts
    if prompt is not None and prompt not in styles:
        raise ConfigError(f"--prompt-style {prompt}: such a model is asked by {', '.join(styles)} alone; leave it out")
    return replace(opened, prompt_style=styles[0]) if len(styles) == 1 else opened


def _is_base(source: str) -> bool:
    """Whether a text names a model, and no folder in which something says what was trained."""
    folder = Path(source)
    if not folder.exists():
        return is_hub_id(source)
    trained = [folder / name for name in ("run.json", "adapter_config.json", ORIGIN_NAME)]
    is_of_run = (folder.parent / "run.json").is_file()
    is_model = source.endswith(".gguf") or _is_full_model(folder)
    return is_model and not is_of_run and not any(path.is_file() for path in trained)


def _is_full_model(folder: Path) -> bool:
    """Whether a folder is transformers' of a model, or diffusers' of a pipeline."""
    return any((folder / name).is_file() for name in ("config.json", PIPELINE_INDEX))


def _opened_base(source: Path, *, base: str | None, prompt: str | None) -> Opened:
    if base is not None:
        raise ConfigError(f"{source} is itself a base model: leave out --base {base}")
    kind = kind_noted(source, model=str(source))
    model = model_settings(kind, path=str(source))
    return Opened(source, model, FULL, prompt or kind_of(kind).untrained_prompt(model), is_base=True)


def _opened(source: Path, *, base: str | None, prompt: str | None) -> Opened:
    if source.name in ("adapter", "model") and (source.parent / "run.json").is_file():
        source = source.parent
    if (source / "run.json").is_file():
        run = RunFolder.open(source)
        record = run.record()
        recipe = parse_recipe(record.recipe, source=str(run.record_path))
        if "model" in record.artifacts:
            return _opened_model(run, recipe, base=base, prompt=prompt)
        if "projector" in record.artifacts:
            return Opened(run.projector, recipe.model, PROJECTOR_ONLY, prompt or recipe.asked_with, run, recipe)
        if "adapter" not in record.artifacts:
            raise CheckpointError(_without_weights(run, is_finished=record.status == "finished"))
        fields = _adapter_fields(run.adapter)
        recorded = fields.get("base_model_name_or_path")
        if base is None and recorded and Path(recorded).is_dir() and not Path(recipe.model.path).exists():
            base = recorded  # the recipe's path was relative to the folder where the run began
        model = recipe.model.model_copy(update={"path": base}) if base else recipe.model
        return Opened(run.adapter, model, fields["peft_type"], prompt or recipe.asked_with, run, recipe)
    prompt = prompt or prompt_of(source)
    if _is_full_model(source) and not (source / "adapter_config.json").is_file():
        return _opened_folder(source, base=base, prompt=prompt)
    fields = _adapter_fields(source)
    path = base or fields.get("base_model_name_or_path") or base_noted(source)
    if not path:
        raise CheckpointError(f"{source} does not say which base model it belongs to: give it with --base")
    kind = kind_noted(source, model=path)
    head = head_of(fields, source / "adapter_model.safetensors") if kind == LANGUAGE else None
    return Opened(source, model_settings(kind, path=path), fields["peft_type"], prompt, own_head=head)


def load_adapted(opened: Opened, *, is_trainable: bool = False) -> tuple[Any, Any]:
    """The base model with the adapter (or the fully trained model), in evaluation mode, and its processor."""
    processor = kind_of(opened.model.kind).load_processor(opened.model, saved=opened.adapter)
    model = load_model(opened.model, opened.head)
    if opened.peft_type == FULL:
        return model.requires_grad_(is_trainable), processor
    if opened.peft_type == PROJECTOR_ONLY:
        prefix = kind_of(opened.model.kind).parts(model)[PROJECTOR]
        load_projector(model, prefix, opened.adapter / PROJECTOR_FILE)
        if is_trainable:
            train_only(model, prefix)
        return model, processor
    return load_adapter(model, opened.adapter, is_trainable=is_trainable).eval(), processor


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Refuse a method or an option that is not known, as far as that shows without the model. Raises ConfigError."""
    if OF_PARTS & options.keys():
        check_by_part(method, options)
    else:
        method_config(method, options)


def whole_options(settings: ModelSettings, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options for the model as a whole, where they are given by its parts. Raises ConfigError."""
    if not OF_PARTS & options.keys():
        return dict(options)
    return _whole(kind_of(settings.kind), meta_model(settings), method, options)


def _whole(kind: Kind, model: Any, method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    parts = kind.parts(model)
    return expand(options, parts, model, method=method) if parts or OF_PARTS & options.keys() else dict(options)


def adapted_on_meta(settings: ModelSettings, method: str, options: Mapping[str, Any]) -> Any:
    """The model with a method's adapter on the meta device, so that a mistake shows before weights are loaded.

    Of `full` it is the model itself, all of it to be trained. Raises ConfigError, or another error of
    `moslora.errors`, for a pattern that matches no module, a layer that cannot carry the adapter, or an option that
    PEFT refuses.
    """
    model = meta_model(settings)
    try:
        kind = kind_of(settings.kind)
        whole = _whole(kind, model, method, options)
        if projector_choice(options) == ONLY:
            train_only(model, kind.parts(model)[PROJECTOR])
            return model
        return prepare_without_weights(model, method, whole, task_type=kind.head.task_type)
    except MosloraError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        if "ParamWrapper" in reason or isinstance(error, AttributeError):  # the second of a module without weight
            layers = ",".join(plain_layers(meta_model(settings)))
            reason += (
                " (PEFT takes the targets for the experts, which the method cannot adapt with these options: leave them"
                f" out, adapter.target_modules=[{layers}])"
            )
        raise ConfigError(f"adapter: {reason}") from error


def require_language_model(opened: Opened, command: str) -> None:
    """Raise ConfigError for an adapter of a model that does not continue text."""
    if not opened.head.is_language_model:
        raise ConfigError(
            f"{command} needs a language model, and {opened.adapter} is an adapter for {opened.head.class_name}"
            f" (task_type {opened.head.task_type}): use it in Python, or fold or merge it"
        )


def text_probe(opened: Opened, tokenizer: Any, model: Any = None) -> dict[str, torch.Tensor]:
    """What an export is compared on with what was opened: real text, and pictures where the model sees them.

    `tokenizer` is the model's processor. Without `model` they are the inputs of a model that continues text.
    """
    return kind_of(opened.model.kind).probe(tokenizer, model, prompt=opened.prompt_style)


def _without_weights(run: RunFolder, *, is_finished: bool) -> str:
    if is_finished:
        again = command("train", run.recipe_path, "--output", "FOLDER")
        return f"the weights of the run {run.path} were removed: train it again with `{again}`"
    onward = command("train", run.recipe_path, "--output", run.path, "--resume")
    return f"the run {run.path} has no trained adapter yet: finish it with `{onward}`"


def _opened_folder(folder: Path, *, base: str | None, prompt: str | None) -> Opened:
    """A full model outside a run, such as a merged one."""
    if base is not None:
        raise ConfigError(f"{folder} holds a full model, which has no other base: leave out --base {base}")
    return Opened(folder, model_settings(kind_noted(folder, model=str(folder)), path=str(folder)), FULL, prompt)


def _opened_model(run: RunFolder, recipe: Recipe, *, base: str | None, prompt: str | None) -> Opened:
    """A run of full fine-tuning; its weights are kept as they were trained, in float32."""
    if base is not None:
        raise ConfigError(f"{run.path} holds a fully trained model, which has no other base: leave out --base {base}")
    model = recipe.model.model_copy(update={"path": str(run.model.absolute()), "revision": None, "dtype": "float32"})
    return Opened(run.model, model, FULL, prompt or recipe.asked_with, run, recipe)


def _adapter_fields(folder: Path) -> dict[str, Any]:
    check_adapter_folder(folder)
    return json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
