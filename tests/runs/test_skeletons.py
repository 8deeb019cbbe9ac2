"""Recipes to start from: complete, each setting once, and good for training as they are."""

import json
import re
from pathlib import Path

import pytest

from moslora.runs.explaining import explained
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.recipe import load_recipe, recipe_text
from moslora.runs.run import run_recipe
from moslora.runs.skeletons import SKELETONS, skeleton_settings

SAMPLES = {
    "instruction": {"instruction": "Say a.", "output": "a"},
    "chat": {"messages": [{"role": "user", "content": "Say a."}, {"role": "assistant", "content": "a"}]},
    "text": {"text": "A text of some words that is long enough."},
    "choice": {"question": "Which is a?", "choices": ["a", "b"], "answer": "a"},
}
NAMED = pytest.mark.parametrize("name", SKELETONS)
_SETTING = re.compile(r"^(  )?(# )?([a-z_]+):")


@NAMED
def test_every_setting_stands_in_a_skeleton_exactly_once(name: str):
    found, group = [], ""
    for line in recipe_text(name).splitlines():
        match = _SETTING.match(line)
        if match is None:
            continue
        if match[1] is None and match[2] is None:
            group = match[3]
        found.append(f"{group}.{match[3]}" if match[1] else match[3])
    own = [setting for setting in found if not setting.startswith("adapter.") or setting == "adapter.method"]
    assert own == [setting.name for setting in explained(LanguageRecipe)]
    assert len({*found}) == len(found)


@NAMED
def test_a_skeleton_is_the_recipe_that_its_text_gives(tmp_path: Path, name: str):
    path = tmp_path / f"{name}.yaml"
    path.write_text(recipe_text(name), encoding="utf-8")
    assert load_recipe(path) == load_recipe(name)
    assert [*skeleton_settings(name)] == ["model", "adapter", "data", "training"]


@NAMED
def test_a_skeleton_trains_on_a_file_of_its_format(tmp_path: Path, model_folder: Path, name: str):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(SAMPLES[name]) + "\n" for _ in range(8)))
    values = {"model.path": model_folder, "data.train": file, "training.max_steps": 1, "training.batch_size": 4}
    recipe = load_recipe(name, [f"{key}={value}" for key, value in values.items()])
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert (record.status, record.steps) == ("finished", 1)
