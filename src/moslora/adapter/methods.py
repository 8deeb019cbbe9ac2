"""The methods a recipe can name, each a PEFT configuration class with some options chosen.

A recipe's `adapter:` is `method: NAME` and options of that method; they are checked against the fields of the class,
never copied into a second model.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peft import LoraConfig, PeftConfig

from moslora.adapter.config import MosloraConfig
from moslora.errors import ConfigError, MosloraError, unknown_name


@dataclass(frozen=True)
class Method:
    """A named method: what it is, PEFT's configuration class, options it starts from and options it fixes."""

    summary: str
    config_class: type[PeftConfig]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> set[str]:
        """The options a recipe may set."""
        own = {option.name for option in dataclasses.fields(self.config_class) if option.init}
        return own - INTERNAL - set(self.fixed)


INTERNAL = {"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "base_model_config", "inference_mode"}
INTERNAL |= {"peft_version", "revision"}
METHODS: dict[str, Method] = {
    "lora": Method("LoRA: B·A", LoraConfig),
    "moslora": Method("MoSLoRA: B·M·A with a learnable mixer M", MosloraConfig),
    "ts-mixing": Method(
        "two-subspace mixing: B·M·A with the fixed butterfly",
        MosloraConfig,
        fixed={"mixer": "butterfly", "mixer_trainable": False, "mixer_depth": 1},
    ),
    "linchain": Method("LinChain: B·M3·M2·M1·A, a chain of mixers", MosloraConfig, defaults={"mixer_depth": 3}),
}


def method_config(method: str, options: Mapping[str, Any], *, task_type: str | None = "CAUSAL_LM") -> PeftConfig:
    """The PEFT configuration of a method with a recipe's options; ConfigError for unknown names and bad values."""
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    chosen = METHODS[method]
    for option in options:
        if option in chosen.fixed:
            raise ConfigError(f"adapter.{option} is fixed for method '{method}' ({chosen.fixed[option]}): remove it")
        if option not in chosen.options:
            raise unknown_name(f"option of method '{method}' in adapter:", option, chosen.options)
    try:
        return chosen.config_class(
            **{"task_type": task_type, **chosen.defaults, **options, **chosen.fixed}  # pyright: ignore[reportArgumentType]
        )
    except MosloraError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter: {' '.join(str(error).split())}") from None
