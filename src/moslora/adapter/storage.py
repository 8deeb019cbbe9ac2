"""Opening the folder of a saved adapter, of any PEFT method, strictly."""

import json
import warnings
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from moslora.adapter.config import MosloraConfig
from moslora.adapter.strictness import check_shapes, first
from moslora.core.folding import is_finite
from moslora.errors import CheckpointError


def load_adapter(model: Any, folder: str | Path, *, is_trainable: bool = False) -> PeftModel:
    """The model with the saved adapter of any PEFT method, as `PeftModel.from_pretrained` gives it.

    Raises CheckpointError unless every tensor of the file was used and none is missing, of which PEFT only warns.
    """
    check_adapter_folder(folder)
    with safe_open(Path(folder) / "adapter_model.safetensors", framework="pt") as tensors:
        given = {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        warnings.filterwarnings("ignore", "The following rank_pattern keys")  # said of every AdaLoRA adapter
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=is_trainable)
        except (RuntimeError, KeyError) as error:  # of load_state_dict
            raise CheckpointError(
                f"the adapter in {folder} does not fit the model ({' '.join(str(error).split())[:300]}): compare r,"
                " target_modules and the base model in adapter_config.json"
            ) from error
    if not isinstance(adapted.peft_config["default"], MosloraConfig):  # else the tuner has checked more than this
        expected = {key: tuple(tensor.shape) for key, tensor in get_peft_model_state_dict(adapted).items()}
        check_shapes("default", given, expected)
    return adapted


def check_adapter_folder(folder: str | Path) -> None:
    """Raise CheckpointError unless `folder` holds an adapter's configuration and undamaged safetensors."""
    folder = Path(folder)
    path = folder / "adapter_config.json"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no adapter_config.json: give the folder of a saved adapter") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}): save or copy the adapter again") from None
    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        advice = "save or copy the adapter again"
        if (folder / "adapter_model.bin").is_file():
            advice = (
                "it has a pickle, adapter_model.bin: save it again as safetensors,"
                " or convert another program's with `moslora import`"
            )
        raise CheckpointError(f"{folder} has no adapter_model.safetensors; {advice}")
    try:
        with safe_open(weights, framework="pt") as tensors:
            damaged = [key for key in tensors.keys() if not is_finite(tensors.get_tensor(key))]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights} is damaged ({error}): save or copy the adapter again") from None
    if damaged:
        raise CheckpointError(f"{weights} holds numbers that are not finite ({first(damaged)}): train it again")
