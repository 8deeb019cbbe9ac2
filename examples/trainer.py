"""MoSLoRA in a script that uses transformers' Trainer.

python examples/trainer.py --model HuggingFaceTB/SmolLM2-135M-Instruct
"""

import argparse
from pathlib import Path

from datasets import Dataset
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

from moslora import MosloraConfig, save_folded
from moslora.data.everyday import everyday


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or folder of a causal language model")
    parser.add_argument("--output", type=Path, default=Path("runs/trainer"), help="a folder that is not there yet")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    end = tokenizer.eos_token
    tokenizer.pad_token = tokenizer.pad_token or end
    texts = [f"{row['instruction']}\n{row['output']}{end}" for row in everyday("train")]
    tokens = tokenizer(texts, truncation=True, max_length=128)
    rows = Dataset.from_dict({**tokens, "labels": tokens["input_ids"]})

    set_seed(42)  # before the adapter is drawn
    config = MosloraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(options.model), config)
    model.print_trainable_parameters()
    arguments = TrainingArguments(
        output_dir=str(options.output / "checkpoints"),
        max_steps=options.steps,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
    )
    collator = DataCollatorForSeq2Seq(tokenizer)  # pads the labels with -100
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collator).train()

    model.save_pretrained(options.output / "adapter")
    drift = save_folded(model, options.output / "folded")
    print(f"plain LoRA in {options.output / 'folded'}, largest difference {drift.max_difference:.2g}")


if __name__ == "__main__":
    main()
