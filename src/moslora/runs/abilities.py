"""What this machine and its packages can do with a model, asked before weights are loaded."""

from importlib import util

import torch

from moslora.errors import ConfigError, MissingDependencyError
from moslora.runs.groups import ModelSettings

SPREAD = ("auto", "balanced", "balanced_low_0", "sequential")  # accelerate's ways to use several devices
HALVES = (torch.float16, torch.bfloat16)


def check_abilities(settings: ModelSettings, dtype: torch.dtype) -> None:
    """Refuse a device that is not there, quantisation without its package, and attention that has no such dtype.

    Raises ConfigError or MissingDependencyError.
    """
    if settings.device_map is not None:
        _check_device(settings.device_map)
    if settings.quantize != "none" and util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f'model.quantize: {settings.quantize} needs bitsandbytes: pip install "moslora[quantized]"'
        )
    attention = settings.attn_implementation or ""
    if attention.startswith("flash_attention") and dtype not in HALVES:
        raise ConfigError(
            f"model.attn_implementation {attention} does not compute in {str(dtype).removeprefix('torch.')}: set"
            " model.dtype to bfloat16, or choose sdpa or eager"
        )


def check_trainable(settings: ModelSettings) -> None:
    """Refuse attention that has no backward pass here. Raises ConfigError."""
    attention = settings.attn_implementation or ""
    has_no_backward = attention.startswith("paged|") or (attention == "flex_attention" and is_on_cpu(settings))
    if has_no_backward:
        place = " on a CPU" if attention == "flex_attention" else ""
        raise ConfigError(f"model.attn_implementation {attention} cannot be trained{place}: choose sdpa or eager")


def is_on_cpu(settings: ModelSettings) -> bool:
    """Whether a model is trained on the CPU: it is asked for, or there is no accelerator."""
    return settings.device_map == "cpu" or not torch.accelerator.is_available()


def devices() -> list[str]:
    """The devices of this machine, as torch names them."""
    found = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if found else 0
    return ["cpu", *(f"{found}:{number}" for number in range(count))]


def _check_device(device_map: str) -> None:
    if device_map in SPREAD:
        return
    known = devices()
    try:
        device = torch.device(device_map)
    except RuntimeError:
        names = ", ".join([*SPREAD, *known])
        raise ConfigError(f"model.device_map '{device_map}' is no device (allowed: {names})") from None
    if f"{device.type}:{device.index or 0}" not in [*known, "cpu:0"]:
        raise ConfigError(
            f"model.device_map {device_map}: this machine has no such device (it has: {', '.join(known)}); choose"
            " one of these, or leave it out"
        )
