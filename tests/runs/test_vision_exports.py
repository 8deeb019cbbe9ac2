"""What a vision-language run exports, where this package cannot be imported: the same answers to ten pictures."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moslora.data.vision_tasks import vision_task
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.exporting import fold_adapter, merge_adapter
from moslora.runs.kinds.vision_language import answer_all
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe

PLAIN = """
import json, sys
sys.modules["moslora"] = None
import torch
from PIL import Image
from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageTextToText, LlavaProcessor
base, adapter, pictures = sys.argv[1], sys.argv[2], sys.argv[3:]
model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
if adapter != "none":
    model = PeftModel.from_pretrained(model, adapter).get_base_model()
processor = LlavaProcessor.from_pretrained(base if adapter == "none" else adapter)
processor.image_processor = AutoImageProcessor.from_pretrained(base, backend="pil")
chat = [{"role": "user", "content": "<image>\\nWhat colour?"}]
text = processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
answers = []
for picture in pictures:
    inputs = processor(text=text, images=Image.open(picture), add_special_tokens=False, return_tensors="pt")
    output = model.eval().generate(**inputs, max_new_tokens=8, do_sample=False, pad_token_id=0)
    new = output[0, inputs["input_ids"].shape[1] :]
    answers.append(processor.tokenizer.decode(new, skip_special_tokens=True).strip())
print(json.dumps(answers))
"""


def answered(*arguments: Any) -> list[str]:
    command = [sys.executable, "-W", "ignore", "-c", PLAIN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def ten(picture_data: Path) -> list[Path]:
    return sorted((picture_data / "easy-vqa" / "images").glob("*.png"))[:10]


def test_fold_and_merge_answer_as_the_adapter_in_plain_peft_and_transformers(
    write_vision: Callable[..., Path], llava_folder: Path, ten: list[Path], tmp_path: Path
):
    recipe = write_vision(training={"max_steps": 12, "learning_rate": 0.03})
    run_recipe(load_recipe(recipe), tmp_path / "run", progress=False)
    opened = open_adapter(tmp_path / "run")
    model, processor = load_adapted(opened)
    task = replace(vision_task("easy-vqa"), max_new_tokens=8)
    question = task.read(tmp_path / "data" / "easy-vqa")[0]
    questions = [replace(question, images=[str(picture)]) for picture in ten]
    expected = answer_all(model, processor, questions, task=task, batch_size=5, progress=False)
    base_answers = answered(llava_folder, "none", *ten)
    fold_adapter(opened, tmp_path / "folded")
    merge_adapter(opened, tmp_path / "merged", dtype=None)
    assert expected != base_answers
    assert answered(llava_folder, tmp_path / "folded", *ten) == expected
    assert answered(tmp_path / "merged", "none", *ten) == expected
