"""AdaLoRA: its plan, and its rank allocation inside transformers' Trainer. PEFT leaves both, and the state, to us."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import AdaLoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from moslora.errors import ConfigError

STATE_FILE = "rank_allocation.safetensors"
SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


def plan(options: Mapping[str, Any], total_steps: int) -> dict[str, Any]:
    """Ranks from 1.5 times the target, a tenth of the steps before the first is taken away, 3 tenths after the last."""
    if total_steps < 2:
        raise ConfigError(
            f"method 'adalora' plans its ranks over the whole training, and needs at least 2 steps, not {total_steps}"
        )
    target = options.get("target_r", AdaLoraConfig.target_r)
    start = options.get("init_r", math.ceil(1.5 * target))
    if not 0 < target < start:
        raise ConfigError(f"adapter.init_r={start} must be above adapter.target_r={target}, and that above 0")
    times = {"init_r": start, "tinit": total_steps // 10, "tfinal": total_steps * 3 // 10}
    return {**times, "total_step": total_steps, "rank_pattern": None}


class AllocateRanks(TrainerCallback):
    """Calls `update_and_allocate` after each optimiser step, while the gradients are there.

    Checkpoints hold all ranks (PEFT would prune them, and could not go on from there) and, beside them, the importance
    scores and the pattern of ranks; training resumes from both. While the model evaluates, the penalty that PEFT adds
    to the loss is off, so that validation losses compare.
    """

    def __init__(self, model: PeftModel) -> None:
        self.tuner: Any = model.base_model
        self.config: Any = model.peft_config["default"]
        self.pattern: dict[str, list[bool]] | None = None
        self.penalty = self.config.orth_reg_weight
        self.tuner.register_forward_pre_hook(self._penalise_training_only)
        self.tuner.register_forward_hook(self._restore_penalty, always_call=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the scores where a checkpoint left them."""
        if state.max_steps != self.config.total_step:
            raise ConfigError(f"the trainer takes {state.max_steps} steps, AdaLoRA planned {self.config.total_step}")
        if state.global_step:
            self._load(_checkpoint(args, state) / STATE_FILE)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the scores and the ranks; the state counts this step only afterwards."""
        self.config.rank_pattern = self.pattern
        self.tuner.update_and_allocate(state.global_step + 1)
        self.pattern, self.config.rank_pattern = self.config.rank_pattern, None

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the scores and the pattern with the checkpoint."""
        if not state.is_world_process_zero:
            return
        tensors = {f"pattern:{name}": torch.tensor(kept) for name, kept in (self.pattern or {}).items()}
        for score in SCORES:
            stored = getattr(self.tuner.rankallocator, score)
            tensors.update({f"{score}:{name}": tensor.contiguous() for name, tensor in stored.items()})
        save_file(tensors, _checkpoint(args, state) / STATE_FILE)

    def _load(self, path: Path) -> None:
        allocator = self.tuner.rankallocator
        device = next(self.tuner.parameters()).device
        pattern = {}
        for key, tensor in load_file(path).items():
            kind, _, name = key.partition(":")
            if kind == "pattern":
                pattern[name] = tensor.tolist()
            else:
                getattr(allocator, kind)[name] = tensor.to(device)
        self.pattern = pattern or None

    def _penalise_training_only(self, module: nn.Module, _inputs: Any) -> None:
        self.config.orth_reg_weight = self.penalty if module.training else 0.0

    def _restore_penalty(self, *_: Any) -> None:
        self.config.orth_reg_weight = self.penalty


def note_ranks(model: PeftModel) -> None:
    """Write the ranks that are left into the configuration, so that saving keeps only those; the others are zero."""
    config: Any = model.peft_config["default"]
    base = model.get_base_model()
    config.rank_pattern = {
        name: (values != 0).view(-1).tolist() for name, values in base.named_parameters() if ".lora_E.default" in name
    }


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
