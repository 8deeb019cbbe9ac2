"""Whether the fields of a PEFT configuration that name parts of the model are written as PEFT reads them.

PEFT iterates over text where it wants a list, letter by letter, and compiles patterns only once a model is there.
"""

import re
from collections.abc import Mapping, Sequence, Set
from numbers import Integral
from typing import Any

from moslora.errors import ConfigError

NAMES = ("modules_to_save", "target_parameters")
NAMES_OR_PATTERN = ("target_modules", "exclude_modules")  # as text: one regular expression, or a shorthand
PATTERN_KEYS = {  # with an example of a value
    "rank_pattern": "numbers, such as {q_proj: 8}",
    "alpha_pattern": "numbers, such as {q_proj: 8}",
    "mixer_pattern": "mixers, such as {q_proj: identity}",
    "dropout_pattern": "shares, such as {q_proj: 0.1}",
}
FRAMES = {  # how PEFT embeds a pattern before it compiles it
    "modules_to_save": r"(^|.*\.){}($|\..*)",
    "layers_pattern": r"(?:^|.*?\.){}\.(?P<idx>\d+)\.",
    **dict.fromkeys(PATTERN_KEYS, r"(.*\.)?({})$"),
}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Refuse text in the place of a list, lists of other things, and patterns that are no regular expressions.

    `fields` are options of any PEFT configuration by name. Raises ConfigError for the first that is wrong.
    """
    for field, value in fields.items():
        if value is None:
            continue
        if field in NAMES or (field in NAMES_OR_PATTERN and not isinstance(value, str)):
            _check_names(field, value)
        if field == "layers_to_transform":
            _check_numbers(field, value if _is_list(value) else [value], wanted="a whole number or a list, [0, 1]")
        if field == "trainable_token_indices":
            _check_token_indices(value)
        if field in PATTERN_KEYS and not isinstance(value, Mapping):
            raise ConfigError(f"{field}={value!r}: give a mapping from patterns to {PATTERN_KEYS[field]}")
        for pattern in _patterns(field, value):
            _check_pattern(field, pattern)


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes))


def _check_names(field: str, value: Any) -> None:
    if isinstance(value, str):
        raise ConfigError(
            f"{field}='{value}' is text, and each letter would count as a name: write a list, ['{value}']"
        )
    if not _is_list(value) or not all(isinstance(name, str) and name for name in value):
        raise ConfigError(f"{field}={value!r}: give a list of names, such as ['lm_head']")


def _check_numbers(field: str, value: Any, *, wanted: str) -> None:
    if not _is_list(value) or not all(
        isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= 0 for number in value
    ):
        raise ConfigError(f"{field}={value!r}: give {wanted}")


def _check_token_indices(value: Any) -> None:
    wanted = "a list of token ids, [5, 6], or such a list for each embedding by its name, {embed_tokens: [5, 6]}"
    for indices in value.values() if isinstance(value, Mapping) else [value]:
        _check_numbers("trainable_token_indices", indices, wanted=wanted)


def _patterns(field: str, value: Any) -> list[str]:
    """The regular expressions among a field's values."""
    if field in NAMES_OR_PATTERN:
        return [value] if isinstance(value, str) else []
    if field not in FRAMES or (field == "layers_pattern" and not value):  # empty: any layer, as in PEFT
        return []
    return [*value] if _is_list(value) or isinstance(value, Mapping) else [value]


def _check_pattern(field: str, pattern: Any) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(f"{field}: {pattern!r} is not a pattern: give text, such as 'q_proj'")
    try:
        re.compile(pattern)
        re.compile(FRAMES.get(field, "{}").replace("{}", pattern, 1))
    except re.error as error:
        raise ConfigError(f"{field}: '{pattern}' is not a regular expression ({error}): correct it") from None
