"""The rank of an arm, and its options at another one, also where the parts of a model have ranks of their own."""

from collections.abc import Mapping
from typing import Any

from moslora.adapter.methods import METHODS, method_config
from moslora.adapter.part_layers import LANGUAGE
from moslora.adapter.parts import ONLY, projector_choice

ALPHAS = ("lora_alpha", "alpha")  # what PEFT's methods call the number over the rank that scales an update
OF_EACH = ("r", "lora_alpha")  # what each part may have of its own


def rank_of(method: str, options: Mapping[str, Any]) -> int | None:
    """The rank of the language model's adapter, or else of the first part's; None for a method without a rank."""
    if "r" not in METHODS[method].options or projector_choice(options) == ONLY:
        return None
    ranks = part_ranks(method, options)
    return ranks.get(LANGUAGE, next(iter(ranks.values()), None))


def part_ranks(method: str, options: Mapping[str, Any]) -> dict[str, int]:
    """The rank of each part, in the order of the options; a model that is one part counts as a language model."""
    common = options["r"] if "r" in options else getattr(method_config(method, {}), "r", None)
    parts = options.get("parts") or {LANGUAGE: {}}
    ranks = {part: own.get("r", common) for part, own in parts.items()}
    return {part: rank for part, rank in ranks.items() if rank is not None}


def at_rank(options: Mapping[str, Any], rank: int) -> dict[str, Any]:
    """The options with every part at this rank; an alpha of twice the rank stays that, another stays as it is."""
    return with_ranks(options, dict.fromkeys(options.get("parts") or [LANGUAGE], rank))


def scaled(ranks: Mapping[str, int], largest: int) -> dict[str, int]:
    """All ranks times one factor that makes the largest of them `largest`, to whole numbers above 0.

    With an even `largest` all become even, since some methods have no other ranks.
    """
    unit, factor = 1 if largest % 2 else 2, largest / max(ranks.values())
    return {part: max(unit, unit * round(rank * factor / unit)) for part, rank in ranks.items()}


def with_ranks(options: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any]:
    """The options with these ranks of the parts; an alpha of twice the rank stays that, another stays as it is."""
    parts = options.get("parts")
    if not parts:
        return _with_rank(options, {}, ranks[LANGUAGE])
    shared = {name: options[name] for name in OF_EACH if name in options}
    changed = {part: _with_rank(own, shared, ranks[part]) for part, own in parts.items()}
    return {**{name: value for name, value in options.items() if name not in shared}, "parts": changed}


def _with_rank(own: Mapping[str, Any], shared: Mapping[str, Any], rank: int) -> dict[str, Any]:
    given = {**shared, **own}
    former = given.get("r")
    alphas = {name: given[name] for name in ALPHAS if name in given}
    follows = [name for name, alpha in alphas.items() if former is not None and alpha == 2 * former]
    return {**own, **alphas, "r": rank, **dict.fromkeys(follows, 2 * rank)}
