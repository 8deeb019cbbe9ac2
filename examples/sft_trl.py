"""MoSLoRA in a script that uses TRL's SFTTrainer.

python examples/sft_trl.py --model HuggingFaceTB/SmolLM2-135M-Instruct
"""

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from peft import AutoPeftModelForCausalLM
from trl import SFTConfig, SFTTrainer

from moslora import MosloraConfig, save_folded
from moslora.data.everyday import everyday


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or folder of a causal language model")
    parser.add_argument("--output", type=Path, default=Path("runs/sft"), help="a folder that is not there yet")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    rows = [{"prompt": f"{row['instruction']}\n", "completion": row["output"]} for row in everyday("train")]
    trainer = SFTTrainer(
        model=options.model,
        args=SFTConfig(
            output_dir=str(options.output / "checkpoints"),
            max_steps=options.steps,
            per_device_train_batch_size=4,
            max_length=128,
            learning_rate=1e-3,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            use_cpu=not torch.accelerator.is_available(),
        ),
        train_dataset=Dataset.from_list(rows),
        peft_config=MosloraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    trainer.train()

    trainer.save_model(str(options.output / "adapter"))
    model = AutoPeftModelForCausalLM.from_pretrained(options.output / "adapter")
    drift = save_folded(model, options.output / "folded")
    print(f"plain LoRA in {options.output / 'folded'}, largest difference {drift.max_difference:.2g}")


if __name__ == "__main__":
    main()
