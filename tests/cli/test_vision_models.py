"""The commands on models other than LLaVA that read pictures, and what other programs make of the results."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForImageTextToText
from typer.testing import Result

from moslora.records import RunRecord
from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.processors import load_processor
from tests.vision_models import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_trained_asked_exported_and_loaded_by_others(
    name: str,
    write_vision_of: Callable[..., Path],
    vision_folder: Callable[[str], Path],
    moslora: Callable[..., Result],
    tmp_path: Path,
):
    run, picture = tmp_path / "run", tmp_path / "data" / "easy-vqa" / "images" / "11.png"
    moslora("train", write_vision_of(name, evaluation={"limit": 2}), "--output", run)
    assert RunRecord.load(run / "run.json").status == "finished"
    assert "evaluated" in moslora("evaluate", run, "--limit", "2").stdout
    assert "verified" in moslora("fold", run, "--output", tmp_path / "folded").stdout
    assert "verified" in moslora("merge", run, "--output", tmp_path / "merged").stdout
    asked = ("What colour?", "--image", picture, "--max-new-tokens", "4")
    said = {moslora("generate", tmp_path / place, *asked).stdout for place in ("run", "folded", "merged")}
    assert len(said) == 1

    base = AutoModelForImageTextToText.from_pretrained(vision_folder(name))
    processor = load_processor(str(tmp_path / "merged"), base.config)
    content = [{"type": "image"}, {"type": "text", "text": "What colour?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    images = [[Image.open(picture)]]
    inputs = processor(text=[text], images=images, add_special_tokens=False, return_tensors="pt")
    adapted, _ = load_adapted(open_adapter(run))
    with torch.no_grad():
        expected, before = adapted(**inputs).logits, base(**inputs).logits
        assert (expected - before).abs().max() > 1e-3
        merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
        folded = PeftModel.from_pretrained(base, str(tmp_path / "folded"))
        for other in (folded.eval(), merged.eval()):
            torch.testing.assert_close(other(**inputs).logits, expected, atol=1e-5, rtol=1e-4)
