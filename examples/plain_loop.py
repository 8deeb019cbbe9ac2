"""MoSLoRA in a training loop of one's own: no Trainer, one optimiser.

python examples/plain_loop.py --model HuggingFaceTB/SmolLM2-135M-Instruct
"""

import argparse
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from moslora import MosloraConfig, inspect_adapter, save_merged
from moslora.data.everyday import everyday


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or folder of a causal language model")
    parser.add_argument("--output", type=Path, default=Path("runs/loop"), help="a folder that is not there yet")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()

    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    end = tokenizer.eos_token
    tokenizer.pad_token = tokenizer.pad_token or end
    base = AutoModelForCausalLM.from_pretrained(options.model).to(device)
    texts = [f"{row['instruction']}\n{row['output']}{end}" for row in everyday("train")]

    torch.manual_seed(42)  # before the adapter is drawn
    config = MosloraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    for step in range(options.steps):
        chosen = [texts[index] for index in torch.randint(len(texts), (4,)).tolist()]
        batch = tokenizer(chosen, padding=True, return_tensors="pt").to(device)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 10 == 0:
            print(f"step {step}  loss {loss.item():.3f}")

    for layer in inspect_adapter(model)[:2]:
        print(f"{layer.name}  mixer condition {layer.mixer_condition:.3g}  update norm {layer.update_norm:.3g}")
    drift = save_merged(model, options.output / "merged", tokenizer=tokenizer)
    print(f"full model in {options.output / 'merged'}, largest difference {drift.max_difference:.2g}")


if __name__ == "__main__":
    main()
