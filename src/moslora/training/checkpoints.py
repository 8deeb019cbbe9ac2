"""The checkpoints that training leaves: which of them are complete, and the weights that one holds."""

import shutil
from pathlib import Path

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from transformers import TrainerState
from transformers.utils import SAFE_WEIGHTS_NAME

from moslora.errors import CheckpointError
from moslora.training.averaging import Average

STATE_FILE = "trainer_state.json"  # written last, so a checkpoint that has it is complete
ADAPTER_FILE = "adapter_model.safetensors"


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that were written to their end, by their steps; changes nothing."""
    return [checkpoint for checkpoint in sorted(folder.glob("checkpoint-*"), key=step_of) if _is_complete(checkpoint)]


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step that was written to its end; half-written ones are removed."""
    complete = complete_checkpoints(folder)
    for checkpoint in set(folder.glob("checkpoint-*")) - set(complete):
        shutil.rmtree(checkpoint, ignore_errors=True)  # another process may be at it too
    return complete[-1] if complete else None


def read_state(checkpoint: Path) -> TrainerState:
    """How far training was. Raises OSError, ValueError or TypeError unless the checkpoint is complete."""
    return TrainerState.load_from_json(str(checkpoint / STATE_FILE))


def load_weights(model: nn.Module, checkpoint: Path, *, average: Average | None = None) -> None:
    """Put what a checkpoint holds into a model that is prepared as it was for training; with `average`, the average.

    Raises CheckpointError unless every trained tensor is there, and no other.
    """
    if average is not None:
        average.load(checkpoint)
        average.apply()
        return
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    if isinstance(model, PeftModel):
        result = set_peft_model_state_dict(model, load_file(checkpoint / ADAPTER_FILE))
    else:
        result = model.load_state_dict(load_file(checkpoint / SAFE_WEIGHTS_NAME), strict=False)
    unfit = [*trained.intersection(result.missing_keys), *result.unexpected_keys]
    if unfit:
        raise CheckpointError(f"{checkpoint} does not fit the run's recipe ({unfit[0]}): train it again")


def step_of(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 where there is none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _is_complete(checkpoint: Path) -> bool:
    try:
        read_state(checkpoint)
    except (OSError, ValueError, TypeError):
        return False
    return True
