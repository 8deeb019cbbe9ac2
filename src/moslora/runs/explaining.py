"""Every setting of a kind of run, as its class declares it: explanation, allowed values, default."""

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moslora.errors import ConfigError, suggestion
from moslora.runs.groups import Recipe
from moslora.runs.validation import elsewhere, group_of

OPTIONS = "adapter"  # the group whose other settings are the method's own
FROM_FILE = "name"  # required, but a recipe's file gives its own name

_SIMPLE = types.MappingProxyType({bool: "true or false", int: "a whole number", float: "a number", str: "text"})
_BOUNDS = types.MappingProxyType({"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"})


@dataclass(frozen=True)
class Explained:
    """A setting, or a group of settings: its dotted name, what it does, what may be given, and the default.

    `choices` are all the values there are, where these are a few names.
    """

    name: str
    explanation: str
    allowed: str
    default: Any  # None: not set, or nothing
    is_required: bool = False
    is_group: bool = False
    choices: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """The name of its group; empty for a setting that stands alone."""
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        """Its name within its group."""
        return self.name.rpartition(".")[2]

    @property
    def described(self) -> str:
        """The explanation, and the allowed names where it does not say them all."""
        unsaid = [name for name in self.choices if not re.search(rf"\b{re.escape(name)}\b", self.explanation)]
        if len(self.choices) < 2 or not unsaid:
            return self.explanation
        return f"{self.explanation} Allowed: {', '.join(self.choices)}."

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {name: value for name, value in asdict(self).items() if name != "choices"}


def explained(recipe: type[Recipe]) -> list[Explained]:
    """The settings of a recipe class in the order of a file, each group followed by its own settings."""
    found: list[Explained] = []
    for name in recipe.model_fields:
        group = group_of(recipe, name)
        found.append(_explained(recipe, name, place="", is_group=group is not None))
        if group is not None:
            found += [_explained(group, key, place=f"{name}.") for key in group.model_fields]
    return found


def find(recipe: type[Recipe], name: str) -> list[Explained]:
    """The setting of this name, or the settings of this group after the group itself.

    The last part of a name is enough where one group has it. Raises ConfigError with the nearest name for another.
    """
    known = explained(recipe)
    exact = [setting for setting in known if setting.name == name or setting.group == name]
    found = exact or [setting for setting in known if setting.key == name]
    if found:
        return found
    names = [setting.name for setting in known]
    group, _, key = name.rpartition(".")
    near = elsewhere(key) or suggestion(name, names) or _nearest_key(key, known)
    if group == OPTIONS:
        raise ConfigError(f"{name} is an option of the method: see moslora methods, and docs/method.md")
    raise ConfigError(f"{name} is not a setting{near} (moslora settings lists all)")


def _nearest_key(given: str, known: Sequence[Explained]) -> str:
    """The whole name of the setting whose last part is nearest."""
    keys = {setting.key: setting.name for setting in known}
    close = get_close_matches(given, keys, n=1)
    return f"; did you mean '{keys[close[0]]}'?" if close else ""


def _explained(owner: type[BaseModel], key: str, *, place: str, is_group: bool = False) -> Explained:
    field: FieldInfo = owner.model_fields[key]
    required = field.is_required() and key != FROM_FILE
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return Explained(
        name=place + key,
        explanation=_explanation(owner, key),
        allowed="a group of settings" if is_group else _allowed(field.annotation, field.metadata),
        default=None if is_group or isinstance(default, BaseModel) else default,
        is_required=required and not is_group,
        is_group=is_group,
        choices=tuple(_choices(field.annotation)),
    )


def _explanation(owner: type[BaseModel], key: str) -> str:
    """The text below a field, or below the one that it takes the place of in a base class."""
    fields = (getattr(cls, "model_fields", {}).get(key) for cls in owner.__mro__)
    return next((" ".join(field.description.split()) for field in fields if field and field.description), "")


def _choices(annotation: Any) -> Iterable[str]:
    """The names that a type allows, also in a list; none for a type that allows more."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not type(None)]
    if origin is Literal:
        return map(str, parts)
    return _choices(parts[0]) if origin is not dict and len(parts) == 1 else ()


def _allowed(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a type allows, in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _allowed(parts[0], parts[1:])
    if origin is Literal:
        return ", ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return ", or ".join(_allowed(part) for part in parts if part is not type(None))
    if origin is list:
        return f"a list: {_allowed(parts[0])}"
    if origin in (dict, Mapping):
        return f"a mapping, {_allowed(parts[0])}: {_allowed(parts[1])}"
    bounds = [f"{word} {value}" for name, word in _BOUNDS.items() if (value := _bound(metadata, name)) is not None]
    return ", ".join([_SIMPLE.get(annotation, "anything"), *bounds])


def _bound(metadata: Sequence[Any], name: str) -> Any:
    for one in metadata:
        for bound in (one, *getattr(one, "metadata", ())):
            if (value := getattr(bound, name, None)) is not None:
                return value
    return None
