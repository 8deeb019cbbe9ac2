"""`MosloraConfig`: LoRA's configuration plus the mixer.

Written against PEFT 0.21. Everything LoRA can do that also holds with a mixer is accepted; the rest is refused here,
before any model is touched.
"""

import dataclasses
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Any

from peft import LoraConfig
from peft.tuners.lora.config import LoraRuntimeConfig

from moslora.adapter.base_model import BaseShape
from moslora.adapter.fields import check_fields
from moslora.adapter.patterns import check_values, is_trained
from moslora.core.mixers import MIXERS
from moslora.errors import ConfigError, unknown_name


class MosloraType(str, Enum):
    """The adapter type in PEFT's registries; a string with the `.value` that PEFT and transformers read."""

    MOSLORA = "MOSLORA"


PLAIN_INITS = (True, False, "gaussian")
REFUSED_OPTIONS = {
    "target_parameters": "PEFT computes these layers without their mixer",
    "use_qalora": "QALoRA pools the input, which the mixer path does not",
    "megatron_config": "Megatron's layers drop the mixer",
    "layer_replication": "replicated layers share one base weight, which merging would change twice",
}


@dataclass
class MosloraRuntimeConfig(LoraRuntimeConfig):
    """How an adapter is computed here and now; PEFT never writes it into `adapter_config.json`."""

    fused: bool = field(
        default=True,
        metadata={"help": "Compute the update of linear layers in one step; False: three linear layers in a row."},
    )


@dataclass
class MosloraConfig(LoraConfig):
    """LoRA with a small R × R mixer between its factors: `delta = scale · B · M · A` (arXiv 2406.11909, equation 7).

    Takes every field of `peft.LoraConfig`. Raises ConfigError for values that are not allowed, and for LoRA options
    that do not hold with a mixer.
    """

    mixer: str = field(
        default="kaiming",
        metadata={"help": "How the mixer starts: kaiming, orthogonal, normal, identity, butterfly or zero."},
    )
    mixer_trainable: bool | None = field(
        default=None,
        metadata={"help": "Train the mixer. Default: yes, except for butterfly, TS-Mixing's fixed mixer."},
    )
    mixer_pattern: dict[str, str] | None = field(
        default_factory=dict,
        metadata={
            "help": "Other mixers at layers whose names match, as in `rank_pattern`; 'none' is plain LoRA there. With"
            " it, `mixer_trainable` left out is decided for each kind of mixer."
        },
    )
    dropout_pattern: dict[str, float] | None = field(
        default_factory=dict, metadata={"help": "Other dropouts at layers whose names match, as in `rank_pattern`."}
    )
    mixer_depth: int = field(
        default=1, metadata={"help": "Number of R × R matrices in a row; LinChain when above 1 (without biases)."}
    )
    use_tucker: bool = field(
        default=False,
        metadata={
            "help": "Convolutions: A and B see one position, and the mixer has the kernel's size, (R, R, k, ...):"
            " FLoRA's Tucker core. Needs mixer='zero'."
        },
    )
    runtime_config: LoraRuntimeConfig = field(
        default_factory=MosloraRuntimeConfig, metadata={"help": "Runtime options, `fused` among them; never saved."}
    )
    fused: InitVar[bool | None] = None  # short for runtime_config.fused; older files name it
    base_model_config: dict[str, Any] | None = field(
        default=None,
        metadata={"help": "Recorded by moslora: the shape of the base model, checked when the adapter is loaded."},
    )

    def __post_init__(self, fused: bool | None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Check each field and each pair of fields."""
        check_fields(vars(self))
        super().__post_init__()
        self._check_runtime(fused)
        self.peft_type = MosloraType.MOSLORA  # pyright: ignore[reportAttributeAccessIssue]
        is_loaded = self.base_model_config is not None and not isinstance(self.base_model_config, BaseShape)
        self.loaded_base_config = self.base_model_config if is_loaded else None
        if self.base_model_config is not None:  # so that a copy of this configuration is a fresh one
            self.base_model_config = BaseShape(self.base_model_config)
        if self.mixer not in MIXERS:
            raise unknown_name("mixer", str(self.mixer), MIXERS)
        self.mixer_pattern = {**(self.mixer_pattern or {})}
        self.dropout_pattern = {**(self.dropout_pattern or {})}
        check_values(self.mixer_pattern, self.dropout_pattern)
        if not self.mixer_pattern:
            self.mixer_trainable = is_trained(self.mixer, self.mixer_trainable)
        self._check_ranks()
        self._check_mixer()
        self._check_lora_options()

    def _check_runtime(self, fused: bool | None) -> None:
        if not isinstance(self.runtime_config, MosloraRuntimeConfig):
            self.runtime_config = MosloraRuntimeConfig(**dataclasses.asdict(self.runtime_config))
        if fused is not None:
            self.runtime_config = dataclasses.replace(self.runtime_config, fused=fused)

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Write `adapter_config.json`, and say in the model card how to load the adapter."""
        super().save_pretrained(save_directory, **kwargs)
        from moslora.adapter.card import add_loading_section

        add_loading_section(save_directory, task_type=self.task_type)

    def _check_ranks(self) -> None:
        ranks = {"r": self.r, **{f"rank_pattern['{key}']": rank for key, rank in (self.rank_pattern or {}).items()}}
        for name, rank in ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise ConfigError(f"{name}={rank!r} is not a rank: give a whole number of at least 1")
            if (
                self.mixer == "butterfly" and rank % 2 and not self.mixer_pattern
            ):  # else it is each layer's own question
                raise ConfigError(
                    f"{name}={rank} is odd: the butterfly mixer joins two halves of the rank, so give an even rank"
                )

    def _check_mixer(self) -> None:
        if not isinstance(self.mixer_depth, int) or isinstance(self.mixer_depth, bool) or self.mixer_depth < 1:
            raise ConfigError(f"mixer_depth={self.mixer_depth!r}: give a whole number of at least 1")
        self._check_tucker()
        patterns = self.mixer_pattern or {}
        places = {"mixer": self.mixer, **{f"mixer_pattern['{key}']": kind for key, kind in patterns.items()}}
        if "butterfly" in places.values() and self.mixer_depth != 1:
            raise ConfigError(
                f"mixer_depth={self.mixer_depth}: the butterfly mixer has depth 1 (a chain only scales it)"
            )
        reason = self._why_zero_never_trains()
        for place, kind in places.items():
            if kind == "zero" and reason is not None:
                raise ConfigError(f"{place}='zero' never trains here: every gradient is exactly zero, since {reason}")

    def _check_tucker(self) -> None:
        if not self.use_tucker or (self.mixer == "zero" and not self.use_dora and not self.mixer_pattern):
            return
        given = f"mixer={self.mixer!r}"
        if self.use_dora or self.mixer_pattern:
            given = "use_dora=True" if self.use_dora else "mixer_pattern"
        raise ConfigError(
            f"use_tucker=True with {given}: the core of a convolution starts at zero, without DoRA (set"
            " mixer='zero', init_lora_weights=False and use_dora=False, or leave use_tucker out)"
        )

    def _why_zero_never_trains(self) -> str | None:
        if self.init_lora_weights is not False:
            return "B starts at zero too (set init_lora_weights=False, FLoRA's start, or choose another mixer)"
        if self.mixer_depth != 1:
            return f"each of the mixer_depth={self.mixer_depth} links is zero (use depth 1 or choose another mixer)"
        if not is_trained("zero", self.mixer_trainable):
            return "the mixer is not trained (set mixer_trainable=True or choose another mixer)"
        return None

    def _check_lora_options(self) -> None:
        for name, reason in REFUSED_OPTIONS.items():
            if getattr(self, name, None):
                raise ConfigError(f"{name} cannot be combined with a mixer: {reason}")
        for option in dataclasses.fields(self):
            if option.metadata.get("is_lora_variant") and option.name != "use_dora" and getattr(self, option.name):
                raise ConfigError(f"{option.name} cannot be combined with a mixer: it replaces LoRA's forward pass")
        if self.init_lora_weights not in PLAIN_INITS:
            raise ConfigError(
                f"init_lora_weights={self.init_lora_weights!r} cannot be combined with a mixer: it needs B·A to start"
                " at a chosen value, which the mixer changes (allowed: True, False, 'gaussian')"
            )
