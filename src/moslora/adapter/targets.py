"""Which modules a configuration names, and which of its patterns name nothing."""

import re
from collections.abc import Iterable
from typing import Any

from moslora.errors import ConfigError, suggestion

SAVED_BY_PEFT = ("classifier", "score", "qa_outputs")  # added by PEFT for classification tasks, present or not
FIELDS = ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern")


def check_patterns(config: Any, module_names: Iterable[str]) -> None:
    """Raise ConfigError for the first pattern of the configuration that matches no module of the model."""
    names = [name for name in module_names if name]
    for field, pattern in unmatched_patterns(config, names):
        leaves = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()})
        shown = ", ".join(leaves[:12]) + (", ..." if len(leaves) > 12 else "")
        raise ConfigError(
            f"{field}: '{pattern}' matches no module of the model{suggestion(pattern, leaves)} (module names: {shown})"
        )


def unmatched_patterns(config: Any, names: list[str]) -> list[tuple[str, str]]:
    """Every (field, pattern) of a configuration that matches none of the module names."""
    return [
        (field, pattern)
        for field in FIELDS
        for pattern in _patterns(getattr(config, field, None))
        if not any(_matches(field, pattern, name) for name in names)
    ]


def _patterns(value: Any) -> list[str]:
    if value is None or isinstance(value, str):
        return []  # a regular expression or a shorthand: PEFT itself refuses one that matches nothing
    return sorted(str(pattern) for pattern in value if pattern not in SAVED_BY_PEFT)


def _matches(field: str, pattern: str, name: str) -> bool:
    if field in ("rank_pattern", "alpha_pattern"):
        return re.match(rf"(.*\.)?({pattern})$", name) is not None
    return name == pattern or name.endswith(f".{pattern}")
