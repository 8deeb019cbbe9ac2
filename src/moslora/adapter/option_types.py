"""Whether a method's options have the types and ranges that its PEFT configuration declares.

PEFT takes any value: a text counts as true, a dropout below 0 as none, and a wrong type ends in an error of torch's.
"""

import math
import types
import typing
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from moslora.errors import ConfigError, suggestion

ALPHAS = ("lora_alpha", "alpha")  # declared as whole numbers, used as any
DROPOUTS = ("lora_dropout", "rank_dropout", "module_dropout", "vera_dropout")
PATTERNS = {"alpha_pattern": (Real, "another number than 0"), "rank_pattern": (int, "a whole number of at least 1")}
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}


def check_types(config_class: type, options: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Raise ConfigError for the first option whose value its field does not take.

    `names` gives the fields of options that the class calls otherwise. Lists and groups are left to others.
    """
    hints = typing.get_type_hints(config_class)
    for name, value in options.items():
        field = names.get(name, name)
        hint = Real if field in ALPHAS else hints.get(field)
        if not _fits(value, hint):
            near = suggestion(value, _texts(hint)) if isinstance(value, str) else ""
            raise ConfigError(f"adapter.{name}={value!r}: give {_described(hint)}{near}")
        _check_range(name, field, value)
        for pattern, own in value.items() if field in PATTERNS and isinstance(value, Mapping) else ():
            kind, wanted = PATTERNS[field]
            if not _fits(own, kind) or own == 0 or (kind is int and own < 1):
                raise ConfigError(f"adapter.{name}: {own!r} for '{pattern}': give {wanted}")


def _check_range(name: str, field: str, value: Any) -> None:
    if field in ALPHAS and not value:
        raise ConfigError(f"adapter.{name}={value!r} scales every update to nothing: give another number than 0")
    if field in DROPOUTS and not 0 <= value < 1:
        raise ConfigError(f"adapter.{name}={value!r}: give a share from 0 to below 1")


def _parts(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a type."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(part for alternative in typing.get_args(hint) for part in _parts(alternative))
    return (hint,)


def _fits(value: Any, hint: Any) -> bool:
    return any(_fits_one(value, part) for part in _parts(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Literal:
        return isinstance(value, str) and any(value == text or value.startswith(_stem(text)) for text in _texts(hint))
    if hint in (float, Real):
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in NAMES else True  # what is not a plain type is not judged here


def _texts(hint: Any) -> list[str]:
    """The texts that a type lists."""
    listed = (typing.get_args(part) for part in _parts(hint) if typing.get_origin(part) is typing.Literal)
    return [text for texts in listed for text in texts]


def _stem(text: str) -> str:
    """What a value may start with where a part of the listed text stands for a number (`pissa_niter_[...]`)."""
    before, bracket, _ = text.partition("[")
    return before if bracket else "\0"


def _described(hint: Any) -> str:
    plain = ["a number"] if hint is Real else [NAMES[part] for part in _parts(hint) if part in NAMES]
    listed = [f"one of {', '.join(_texts(hint))}"] if _texts(hint) else []
    return " or ".join([*plain, *listed])
