"""A recipe as a file to edit: the settings that are chosen, each with a reason or an explanation, and the others."""

import json
import re
from collections.abc import Iterable, Mapping
from textwrap import wrap
from typing import Any

from moslora.runs.explaining import OPTIONS, Explained, explained
from moslora.runs.groups import Recipe

COLUMN, WIDTH = 36, 118  # where comments start, and lines end
NARROWEST = 40  # of a comment
_PLAIN = re.compile(r"[A-Za-z_./~][\w./+~-]*( [\w./+~-]+)*")  # text that needs no quotes in YAML
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "~"})
# the options of an adapter that most recipes have; the others are a method's own
OPTION_NOTES = {
    "r": "the rank: a higher one can learn more, and needs more memory",
    "lora_alpha": "the update is scaled by lora_alpha / r",
    "lora_dropout": "the share of the adapter's inputs that are zeroed at random in training",
    "target_modules": "the layers that get an adapter: names, or all-linear",
    "mixer": "how the mixer starts: kaiming, orthogonal, normal, identity, butterfly",
    "mixer_trainable": "false: the mixer stays as it starts",
    "mixer_depth": "mixers in a chain",
    "use_rslora": "scale by lora_alpha / sqrt(r)",
    "use_dora": "learn magnitude and direction apart",
}
OPTION_DEFAULTS = {"lora_dropout": 0.0, "mixer": "kaiming", "mixer_trainable": True, "mixer_depth": 1} | dict.fromkeys(
    ("use_rslora", "use_dora"), False
)


def commented(
    recipe: type[Recipe], chosen: Mapping[str, Any], *, head: str, reasons: Mapping[str, str], complete: bool
) -> str:
    """A recipe's YAML: its head, then the chosen settings group by group.

    A setting's comment is the reason for its value, by dotted name, else its explanation. With `complete` the settings
    that are not chosen stand between them as comments, with their defaults.
    """
    known = explained(recipe)
    lines = [head.rstrip("\n")]
    for setting in known:
        if setting.group:
            continue
        if not setting.is_group:
            own = _setting(setting, chosen, reasons=reasons, complete=complete)
            lines += ["", *own] if own and len(lines) == 1 else own
            continue
        group = chosen.get(setting.name) or {}
        own = [one for one in known if one.group == setting.name]
        body = [line for one in own for line in _setting(one, group, reasons=reasons, complete=complete)]
        if setting.name == OPTIONS:
            body += _options(group, reasons=reasons, complete=complete)
        if body:
            lines += ["", f"{setting.name}:", *body]  # a group whose settings are all comments counts as not given
    return "\n".join(lines) + "\n"


def yaml_value(value: Any) -> str:
    """A value on one line of YAML."""
    match value:
        case None:
            return ""
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case bool() | str():
            return json.dumps(value, ensure_ascii=False)
        case float():
            return f"{value:.15g}"
        case list():
            return f"[{', '.join(map(yaml_value, value))}]"
        case dict():
            return f"{{{', '.join(f'{yaml_value(key)}: {yaml_value(part)}' for key, part in value.items())}}}"
        case _:
            return str(value)


def _setting(
    setting: Explained, group: Mapping[str, Any], *, reasons: Mapping[str, str], complete: bool
) -> Iterable[str]:
    indent = "  " if setting.group else ""
    comment = reasons.get(setting.name) or _described(setting)
    if setting.key in group:
        return _line(f"{indent}{setting.key}: {yaml_value(group[setting.key])}", comment)
    if not complete:
        return []
    return _line(f"{indent}# {setting.key}: {yaml_value(setting.default)}".rstrip(), comment)


def _described(setting: Explained) -> str:
    text = setting.described.removesuffix(".")
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _options(group: Mapping[str, Any], *, reasons: Mapping[str, str], complete: bool) -> list[str]:
    lines: list[str] = []
    for name, value in group.items():
        if name != "method":
            comment = reasons.get(f"{OPTIONS}.{name}") or OPTION_NOTES.get(name, "")
            lines += _line(f"  {name}: {yaml_value(value)}", comment)
    if complete:
        for name in [name for name in OPTION_DEFAULTS if name not in group]:
            lines += _line(f"  # {name}: {yaml_value(OPTION_DEFAULTS[name])}", OPTION_NOTES[name])
        lines.append("  # and each other option of the method: moslora methods, docs/method.md")
    return lines


def _line(code: str, comment: str) -> list[str]:
    """A setting and its comment, which goes on below itself where it is long."""
    if not comment:
        return [code]
    column = max(COLUMN, len(code) + 2)
    if WIDTH - column < NARROWEST:  # the value leaves no room beside it
        indent = code[: len(code) - len(code.lstrip())]
        return [*(f"{indent}# {part}" for part in _wrapped(comment, WIDTH - len(indent) - 2)), code]
    first, *others = _wrapped(comment, WIDTH - column - 2)
    return [f"{code:<{column}}# {first}", *(f"{'':<{column}}# {other}" for other in others)]


def _wrapped(text: str, width: int) -> list[str]:
    return wrap(text, width, break_on_hyphens=False)  # names such as all-linear stay whole
