"""Settings checked against a pydantic model; a mistake becomes one line: the value, what is allowed, the name meant."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from moslora.errors import ConfigError, allowed_names, command, suggestion
from moslora.runs.settings import describe

Model = TypeVar("Model", bound=BaseModel)

# pydantic's error types and what to write instead; the bounds come with the error
_ALLOWED = MappingProxyType(
    {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "int_parsing": "a whole number",
        "float_type": "a number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
        "bool_type": "true or false",
        "bool_parsing": "true or false",
        "string_type": "text (in quotes if it looks like a number)",
        "string_too_short": "text that is not empty",
        "string_pattern_mismatch": "letters, digits, '_', '-' and '.', starting with a letter or digit",
        "list_type": "a list such as [a, b]",
        "dict_type": "a group of settings",
        "model_type": "a group of settings",
        "greater_than": "more than {gt}",
        "greater_than_equal": "at least {ge}",
        "less_than": "less than {lt}",
        "less_than_equal": "at most {le}",
    }
)

# what other trainers call a setting, and what it is called here
_ELSEWHERE = MappingProxyType(
    {
        **dict.fromkeys(("base_model", "model_name_or_path", "model_name", "pretrained_model"), "model.path"),
        **dict.fromkeys(("datasets", "dataset", "train_file", "data_path"), "data.train"),
        **dict.fromkeys(("sequence_len", "max_seq_length", "max_seq_len", "cutoff_len"), "data.max_length_tokens"),
        **dict.fromkeys(("train_on_inputs", "train_on_prompt", "mask_prompt"), "data.loss_on"),
        "sample_packing": "data.packing",
        "val_set_size": "data.validation_samples",
        **dict.fromkeys(("lr", "lr_rate"), "training.learning_rate"),
        "lr_scheduler": "training.schedule",
        "lr_scheduler_type": "training.schedule",
        **dict.fromkeys(("num_epochs", "num_train_epochs", "n_epochs"), "training.epochs"),
        **dict.fromkeys(
            ("gradient_accumulation_steps", "per_device_train_batch_size"),
            "training.micro_batch_size (training.batch_size counts all samples of a step)",
        ),
        **dict.fromkeys(("load_in_4bit", "load_in_8bit"), "model.quantize"),
        **dict.fromkeys(("lora_r", "rank", "r"), "adapter.r"),
        **dict.fromkeys(("lora_alpha", "lora_dropout", "target_modules"), "adapter"),
        "lora_target_modules": "adapter.target_modules",
        "output_dir": "the option --output",
    }
)


def validated(model: type[Model], settings: Mapping[str, Any], *, source: str) -> Model:
    """The model built from `settings`. Raises `ConfigError`: the first mistake in full, the other settings by name."""
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    message = _explain(mistakes[0], model)
    if others := [_dotted(mistake["loc"]) or "a relation" for mistake in mistakes[1:]]:
        message += f" (wrong too: {', '.join(dict.fromkeys(others))})"
    raise ConfigError(f"{source}: {message}")


def _explain(mistake: ErrorDetails, model: type[BaseModel]) -> str:
    loc, value, context = mistake["loc"], mistake["input"], mistake.get("ctx", {})
    name = _dotted(loc) or "the recipe"
    match mistake["type"]:
        case "extra_forbidden":
            return _unknown(loc, model)
        case "missing":
            name = _first_required(loc, model)
            return f"{name} is missing; add it to the file or give --set {name}=VALUE"
        case "literal_error":
            names = re.findall(r"'([^']*)'", context["expected"])
            near = suggestion(value, names) if isinstance(value, str) else ""
            return f"{name} is {describe(value)}{allowed_names(near, names)}"
        case "value_error":
            return f"{name}: {context['error']}" if loc else str(context["error"])
        case kind if kind in _ALLOWED:
            return f"{name} is {describe(value)}; allowed: {_ALLOWED[kind].format_map(context)}"
        case _:
            return f"{name} is {describe(value)}: {mistake['msg']}"


def _dotted(loc: Sequence[int | str]) -> str:
    """`("evaluation", "tasks", 1)` as `evaluation.tasks[1]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def _unknown(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """The message for a key that no setting has; a key that another group has is named with its group."""
    *groups, key = (str(part) for part in loc)
    owner = model
    for group in groups:
        owner = group_of(owner, group) or owner
    names = list(owner.model_fields)
    in_others = [f"{group}.{key}" for group in model.model_fields if key in _names(group_of(model, group))]
    near = f"; did you mean '{in_others[0]}'?" if in_others else elsewhere(key) or suggestion(key, names)
    return f"{_dotted(loc)} is not a setting{allowed_names(near, names, listed_by=_lister(model, groups))}"


def _lister(model: type[BaseModel], groups: Sequence[str]) -> str:
    """The command that lists a recipe's settings; empty for what is not a recipe."""
    kind = model.model_fields.get("kind")
    kinds = get_args(kind.annotation) if kind else ()
    return command("settings", *groups, *(["--kind", *kinds] if kinds != ("language",) else [])) if kinds else ""


def elsewhere(key: str) -> str:
    """`; here it is x` for a setting's name in other trainers, or an empty string."""
    return f"; here it is {_ELSEWHERE[key]}" if key in _ELSEWHERE else ""


def _first_required(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """The dotted name of a missing setting; of a missing group, its first setting without a default."""
    group = group_of(model, str(loc[-1])) if len(loc) == 1 else None
    required = [name for name, field in group.model_fields.items() if field.is_required()] if group else []
    return ".".join([_dotted(loc), *required[:1]])


def group_of(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The class of a group of settings; None for a setting that is none, or unknown."""
    field = model.model_fields.get(name)
    annotation = field.annotation if field else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _names(group: type[BaseModel] | None) -> list[str]:
    return list(group.model_fields) if group else []
