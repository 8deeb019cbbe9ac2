"""What sets single layers apart in one adapter: their mixer and dropout, by the rule of PEFT's `rank_pattern`.

A pattern is a regular expression for the end of a layer's name, from a dot on; the first that matches counts.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from peft.utils.other import get_pattern_key

from moslora.core.mixers import MIXERS
from moslora.errors import ConfigError, unknown_name

NO_MIXER = "none"  # plain LoRA at these layers, with no mixer drawn, stored or computed
FIELDS = ("mixer_pattern", "dropout_pattern")


def value_at(pattern: Mapping[str, Any], name: str, default: Any) -> Any:
    """The value that a pattern gives to the layer of this name, or the default."""
    return pattern.get(get_pattern_key([*pattern], name), default)


def config_at(config: Any, name: str) -> Any:
    """A MosloraConfig as it holds for the layer of this name; a shallow copy.

    Raises ConfigError for a butterfly mixer on an odd rank.
    """
    own = copy.copy(config)
    own.mixer = value_at(config.mixer_pattern, name, config.mixer)
    own.lora_dropout = value_at(config.dropout_pattern, name, config.lora_dropout)
    own.mixer_trainable = is_trained(own.mixer, config.mixer_trainable)
    rank = value_at(config.rank_pattern or {}, name, config.r)
    if own.mixer == "butterfly" and rank % 2:
        raise ConfigError(
            f"{name} has rank {rank}, which is odd: the butterfly mixer joins two halves of the rank, so give an even"
            " rank, or another mixer in mixer_pattern"
        )
    return own


def is_trained(mixer: str, wanted: bool | None) -> bool:
    """Whether a mixer is trained: as wanted, and where nothing is said unless it is the butterfly of TS-Mixing."""
    return mixer != "butterfly" if wanted is None else wanted


def check_values(mixers: Mapping[str, Any], dropouts: Mapping[str, Any]) -> None:
    """Raise ConfigError for a mixer that is not known and a dropout that is no share."""
    for pattern, mixer in mixers.items():
        if mixer not in (*MIXERS, NO_MIXER):
            raise unknown_name(f"mixer_pattern['{pattern}']: mixer", str(mixer), (*MIXERS, NO_MIXER))
    for pattern, dropout in dropouts.items():
        is_number = isinstance(dropout, (int, float)) and not isinstance(dropout, bool)
        if not is_number or not 0 <= dropout < 1:
            raise ConfigError(f"dropout_pattern['{pattern}']={dropout!r}: give a share from 0 to below 1")


def check_are_used(config: Any, adapted: Sequence[str]) -> None:
    """Raise ConfigError for a pattern that matches modules of the model, but none of the adapted ones."""
    for field in FIELDS:
        for pattern in getattr(config, field):
            if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in adapted):
                shown = ", ".join(adapted[:3]) + (", ..." if len(adapted) > 3 else "")
                raise ConfigError(
                    f"{field}: '{pattern}' matches none of the adapted layers ({shown}): remove it, or name its"
                    " layers in target_modules too"
                )
