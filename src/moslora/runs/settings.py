"""Settings as YAML text: read with line numbers in the errors, and overridden by `section.key=value`.

Numbers and truth values follow YAML 1.2, where `1e-3` is a number and `no` is text, and a key given twice is an error.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from moslora.errors import ConfigError

TOLD = 3  # changed settings told with their values


def read_settings(text: str, *, source: str) -> dict[str, Any]:
    """The mapping that a YAML document holds. Raises `ConfigError` naming `source` and the line."""
    try:
        settings = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}{_place(error)}: not valid YAML: {_reason(error)}") from error
    if not isinstance(settings, dict):
        given = "is empty" if settings is None else f"holds {describe(settings)}"
        raise ConfigError(f"{source} {given}; it needs settings such as 'seed: 42', one per line")
    return settings


def override(settings: dict[str, Any], assignment: str, *, source: str) -> None:
    """Set one value in place, `training.epochs=1` or `adapter.target_modules=[q_proj,v_proj]`. Raises `ConfigError`."""
    key, separator, text = assignment.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise ConfigError(f"--set '{assignment}' is not key=value; write for example --set training.epochs=1")
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set '{assignment}': the value is not valid YAML: {_reason(error)}") from error
    place = settings
    for depth, part in enumerate(parts[:-1], start=1):
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            owner = ".".join(parts[:depth])
            raise ConfigError(f"{source}: {owner} is {describe(place)}, so it has no setting '{parts[depth]}'")
    place[parts[-1]] = value


def changed_settings(former: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which two groups differ, by dotted name in alphabetical order, with both values."""
    was, now = _flat(former), _flat(wanted)
    names = sorted(was.keys() | now.keys())
    return {name: (was.get(name), now.get(name)) for name in names if was.get(name) != now.get(name)}


def told_changes(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """The first of some changed settings with both values, and how many more there are."""
    told = [f"{name} was {was}, is {now}" for name, (was, now) in [*changed.items()][:TOLD]]
    more = len(changed) - len(told)
    return "; ".join([*told, *([f"{more} more"] if more else [])])


def describe(value: Any) -> str:
    """A value as it is shown in an error, shortened."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case str():
            return f"'{_shortened(value)}' (text)"
        case dict():
            return f"a group of settings ({_shortened(', '.join(map(str, value)))})" if value else "an empty group"
        case list():
            return f"the list [{_shortened(', '.join(map(str, value)))}]"
        case _:
            return _shortened(str(value))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way to declare it)

    def construct_mapping(self, node: Node, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text and occur once."""
        if isinstance(node, MappingNode):
            seen = set()
            for key_node, _ in node.value:
                key = key_node.value
                if not isinstance(key_node, ScalarNode) or not isinstance(self.construct_object(key_node), str):
                    raise yaml.MarkedYAMLError(problem=f"the key {key} is not text", problem_mark=key_node.start_mark)
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"'{key}' is set twice", problem_mark=key_node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep=deep)  # type: ignore[arg-type]


def _add_scalar(tag: str, pattern: str, *, first: str, convert: Callable[[str], Any]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), [*first])
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", lambda _, node: convert(node.value))


_add_scalar("null", "null|Null|NULL|~", first="nN~", convert=lambda _: None)
_add_scalar("bool", "true|True|TRUE|false|False|FALSE", first="tTfF", convert=lambda text: text.lower() == "true")
_add_scalar("int", "[-+]?[0-9]+", first="-+0123456789", convert=int)
_add_scalar("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", first="-+.0123456789", convert=float)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^$"), [""])


def _place(error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f", line {mark.line + 1}" if mark else ""


def _reason(error: yaml.YAMLError) -> str:
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return problem or " ".join(str(error).split())
