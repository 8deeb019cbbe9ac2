"""One adapter for a model made of parts: each part's options, written as one PEFT configuration.

A recipe's `adapter:` holds `parts: {language: {...}, vision: {...}}` and `projector:`, beside the options that all
parts share. A part's layers become one exact pattern of `target_modules`; where its rank, alpha, dropout or mixer
differ, they become an entry of the pattern of that name.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import INCLUDE_LINEAR_LAYERS_SHORTHAND
from torch import nn

from moslora.adapter.fields import check_fields
from moslora.adapter.merging import is_quantised
from moslora.adapter.methods import Method, known_method, known_options, method_config
from moslora.adapter.part_layers import (
    LANGUAGE,
    PROJECTOR,
    dead_modules,
    exact_pattern,
    is_within,
    linear_layers,
    names_in,
    part_of,
)
from moslora.adapter.patterns import NO_MIXER
from moslora.adapter.targets import names_to_match
from moslora.errors import ConfigError, suggestion, unknown_name

FROZEN, TRAINED, ONLY = "frozen", "trained", "only"
PROJECTOR_CHOICES = {
    FROZEN: "stays as it is",
    TRAINED: "trained whole beside the adapter",
    ONLY: "trained whole, with no adapter",
}
PATTERNS = {  # what parts may differ in, and the field that holds the difference
    "r": "rank_pattern",
    "lora_alpha": "alpha_pattern",
    "lora_dropout": "dropout_pattern",
    "mixer": "mixer_pattern",
}
PART_OPTIONS = ("target_modules", *PATTERNS)


def projector_choice(options: Mapping[str, Any]) -> str:
    """What becomes of the projector: frozen (the default), trained or only. Raises ConfigError for another word."""
    choice = options.get(PROJECTOR) or FROZEN
    if choice not in PROJECTOR_CHOICES:
        raise unknown_name("adapter.projector:", str(choice), PROJECTOR_CHOICES)
    return choice


def expand(options: Mapping[str, Any], parts: Mapping[str, str], model: nn.Module, *, method: str) -> dict[str, Any]:
    """The options of one PEFT configuration for a recipe's options by part.

    `parts` maps the names of the model's parts to the prefixes of their modules, empty for a model of one part; `model`
    is the base, on any device. Without `parts:` in the options, target names that reach more than one part are refused.
    With `projector: only` nothing is left to adapt and the result is empty (see `projector.train_only`). Raises
    ConfigError.
    """
    choice, common = _projector_and_common(options, method=method)
    if PROJECTOR in options and PROJECTOR not in parts:
        raise ConfigError(f"adapter.projector={choice}: the model has no projector; remove it")
    if choice == ONLY:
        if given := [name for name in options if name != PROJECTOR]:
            raise ConfigError(
                f"adapter.projector=only trains no adapter, so {', '.join(given)} would do nothing: remove"
                f" {'it' if len(given) == 1 else 'them'}, or set projector: trained"
            )
        return {}
    if options.get("parts") is None:
        expanded = _checked_whole(common, parts, model, method=method)
    else:
        expanded = _by_part(options["parts"], common, parts, model=model, method=method)
    return _with_projector(expanded, parts[PROJECTOR], model) if choice == TRAINED else expanded


def check_by_part(method: str, options: Mapping[str, Any]) -> None:
    """Refuse what is wrong with a recipe's options by part, as far as that shows without the model.

    Raises ConfigError.
    """
    choice, common = _projector_and_common(options, method=method)
    given = options.get("parts")
    if choice == ONLY:
        return  # other options are refused by `expand`
    own_options = [common]
    for part, own in given.items() if isinstance(given, Mapping) else ():
        if isinstance(own, Mapping):
            for option, value in own.items():
                _check_option(part, option, value, method=method)
            own_options.append(common | {option: value for option, value in own.items() if value != NO_MIXER})
    for one in own_options:
        method_config(method, one)


def _projector_and_common(options: Mapping[str, Any], *, method: str) -> tuple[str, dict[str, Any]]:
    """What becomes of the projector, and the options that all parts share."""
    choice = projector_choice(options)
    if known_method(method).config_class is None and (named := [key for key in ("parts", PROJECTOR) if key in options]):
        raise ConfigError(f"method '{method}' trains all weights of every part: remove {' and '.join(named)}")
    return choice, {name: value for name, value in options.items() if name not in ("parts", PROJECTOR)}


def options_for(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a recipe's options, by part too, that the method has: to give it what another method was given."""
    kept = known_options(method, options)
    if known_method(method).config_class is None:
        return kept
    given = options.get("parts")
    if isinstance(given, Mapping):
        kept["parts"] = {part: _own_options(method, own) for part, own in given.items()}
    return {**kept, PROJECTOR: options[PROJECTOR]} if PROJECTOR in options else kept


def _own_options(method: str, own: Any) -> Any:
    if not isinstance(own, Mapping):
        return own  # refused by `expand`
    return {option: value for option, value in own.items() if _has(method, option, value)}


def _checked_whole(
    options: dict[str, Any], parts: Mapping[str, str], model: nn.Module, *, method: str
) -> dict[str, Any]:
    """Options without parts, unless their target names reach more than one."""
    config: Any = method_config(method, options)
    if len(parts) < 2 or config is None:
        return options
    if config.target_modules is None or str(config.target_modules).lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        reached = {*parts}  # also where PEFT would choose the names itself
    else:
        names = [name for name in names_to_match(model) if check_target_module_exists(config, name)]
        reached = {part_of(name, parts) for name in names}
    if len(reached) > 1:
        adapted = [part for part in parts if part != PROJECTOR]
        raise ConfigError(
            f"adapter.target_modules={options.get('target_modules')!r} reaches more than one part of the model"
            f" ({', '.join(part for part in parts if part in reached)}): say what each part gets, parts:"
            f" {{{', '.join(f'{part}: {{target_modules: all-linear}}' for part in adapted)}}}"
        )
    return options


def _by_part(
    given: Any, common: dict[str, Any], parts: Mapping[str, str], *, model: nn.Module, method: str
) -> dict[str, Any]:
    settings = _checked_parts(given, common, parts, method=method)
    dead = dead_modules(model, parts)
    targets = {
        part: _targets(part, own.get("target_modules"), parts, model=model, dead=dead) for part, own in settings.items()
    }
    pattern = exact_pattern({name for names in targets.values() for name in names}, names_to_match(model))
    result = {**common, "target_modules": pattern}
    for option in PATTERNS:
        result |= _differing(option, settings, common, parts, method=method)
    return result


def _checked_parts(
    given: Any, common: Mapping[str, Any], parts: Mapping[str, str], *, method: str
) -> dict[str, dict[str, Any]]:
    """Each part's own options in the order of the model's parts, all of which a part may have."""
    allowed = [part for part in parts if part != PROJECTOR]
    if not allowed:
        raise ConfigError("adapter.parts: this model is one part; write the options without parts")
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"adapter.parts={given!r}: give a mapping from parts ({', '.join(allowed)}) to their options")
    if "target_modules" in common:
        raise ConfigError("adapter.target_modules is given beside parts: move it into each part it is meant for")
    if common.get("layers_to_transform") is not None:
        raise ConfigError(
            "adapter.layers_to_transform does not say which part it means: name the layers in each part's"
            " target_modules,"
            " such as layers.0.mlp.fc1"
        )
    for part, own in given.items():
        if part == PROJECTOR:
            raise ConfigError("adapter.parts.projector: it carries no adapter; set projector: trained beside parts")
        if part not in allowed:
            raise unknown_name("part in adapter.parts:", str(part), allowed)
        if not isinstance(own, Mapping):
            raise ConfigError(f"adapter.parts.{part}={own!r}: give a mapping of options, or leave the part out")
        for option in own:
            _check_option(part, option, own[option], method=method)
    _check_is_used(common, given)
    return {part: dict(given[part]) for part in allowed if part in given}


def _check_is_used(common: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]) -> None:
    for option in PATTERNS:
        if option in common and all(option in own for own in given.values()):
            raise ConfigError(
                f"adapter.{option}={common[option]} would do nothing, since each part has its own: change those"
                f" (adapter.parts.{next(iter(given))}.{option}), or remove it"
            )


def _check_option(part: str, option: str, value: Any, *, method: str) -> None:
    known = known_method(method).options
    if option not in PART_OPTIONS:
        if option in known:
            raise ConfigError(
                f"adapter.parts.{part}.{option} cannot differ by part: put it beside parts (a part may have"
                f" {', '.join(PART_OPTIONS)})"
            )
        raise unknown_name(f"option in adapter.parts.{part}:", str(option), PART_OPTIONS)
    if not _has(method, option, value):
        raise ConfigError(f"adapter.parts.{part}.{option}: method '{method}' has no such option; remove it")


def _has(method: str, option: str, value: Any) -> bool:
    """Whether a method lets a part have this value; a method whose mixer is fixed may still leave it out."""
    known = known_method(method).options
    return option in known or (option == "mixer" and value == NO_MIXER and PATTERNS[option] in known)


def _targets(part: str, wanted: Any, parts: Mapping[str, str], *, model: nn.Module, dead: Sequence[str]) -> list[str]:
    """The modules of a part that its target names name, all its linear layers by default, without the dead ones."""
    names = names_in(model, parts, part)
    if wanted is None or str(wanted).lower() == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        linear = _alive(linear_layers(model, names), dead)
        if not linear:
            raise ConfigError(
                f"adapter.parts.{part}: {parts[part]} has no linear layers that train: leave the part out"
            )
        return linear
    where = f"adapter.parts.{part}.target_modules"
    if isinstance(wanted, str):
        raise ConfigError(f"{where}='{wanted}': give a list of names, ['{wanted}'], or all-linear")
    check_fields({"target_modules": wanted})
    found: list[str] = []
    for name in wanted:
        matched = [whole for whole in names if whole == name or whole.endswith(f".{name}")]
        if not matched:
            leaves = sorted({leaf for whole in names if not (leaf := whole.rpartition(".")[2]).isdigit()})
            raise ConfigError(
                f"{where}: '{name}' matches no module of {part} ({parts[part]}){suggestion(name, leaves)}"
                f" (module names: {', '.join(leaves[:12])}{', ...' if len(leaves) > 12 else ''})"
            )
        if not _alive(matched, dead):
            raise ConfigError(f"{where}: '{name}' matches only layers that are never trained ({matched[0]}): remove it")
        found += matched
    return _alive(found, dead)


def _alive(names: Sequence[str], dead: Sequence[str]) -> list[str]:
    return [name for name in names if not any(is_within(name, prefix) for prefix in dead)]


def _differing(
    option: str,
    settings: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
    parts: Mapping[str, str],
    *,
    method: str,
) -> dict[str, Any]:
    """The value of an option for the first part that can give it, and the pattern of the parts with another one."""
    if not any(option in own for own in settings.values()):
        return {}
    field, chosen_method = PATTERNS[option], known_method(method)
    is_fixed = option in chosen_method.fixed
    default = chosen_method.fixed[option] if is_fixed else _default(option, chosen_method)
    values = {part: own.get(option, common.get(option, default)) for part, own in settings.items()}
    main = default if is_fixed else next((value for value in values.values() if value != NO_MIXER), None)
    if main is None or all(value == NO_MIXER for value in values.values()):
        raise ConfigError("adapter.parts: no part has a mixer; choose method: lora")
    chosen = {} if is_fixed else {option: main}
    other = {_pattern(part, parts): value for part, value in values.items() if value != main}
    if not other:
        return chosen
    is_ignored = method == "adalora"  # has the fields, and reads none
    if field not in chosen_method.options or is_ignored:
        raise ConfigError(
            f"adapter.parts: {option} differs by part ({', '.join(f'{p}: {v}' for p, v in values.items())}), and"
            f" method '{method}' has no {field}: give all parts the same, or choose another method, such as the default"
        )
    return {**chosen, field: {**(common.get(field) or {}), **other}}


def _default(option: str, method: Method) -> Any:
    """What PEFT takes where nothing is said."""
    if option in method.defaults or method.config_class is None:
        return method.defaults.get(option)
    return getattr(method.config_class, method.names.get(option, option), None)


def _pattern(part: str, parts: Mapping[str, str]) -> str:
    """A pattern for all of a part's modules; PEFT matches it from the start of a name."""
    inside = rf"^{re.escape(parts[part])}\..*"
    if part != LANGUAGE:
        return inside
    others = "|".join(re.escape(prefix) for name, prefix in parts.items() if name != LANGUAGE)
    return rf"^(?!(?:{others})\.).*" if others else inside


def _with_projector(options: dict[str, Any], prefix: str, model: nn.Module) -> dict[str, Any]:
    """The options with the projector among the modules that are trained whole and saved."""
    alike = [name for name, _ in model.named_modules() if name.endswith(prefix) and name != prefix]
    if alike:  # PEFT takes every module whose name ends so
        raise ConfigError(f"adapter.projector=trained would train {alike[0]} too, whose name ends in '{prefix}'")
    if any(is_quantised(module) for module in model.get_submodule(prefix).modules()):
        raise ConfigError(
            f"adapter.projector=trained: {prefix} is quantised, and only whole numbers could be trained there; leave it"
            " out of quantisation (llm_int8_skip_modules)"
        )
    saved = [name for name in options.get("modules_to_save") or () if name != prefix]
    return {**options, "modules_to_save": [*saved, prefix]}
