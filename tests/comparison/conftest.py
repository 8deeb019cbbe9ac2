"""A plan of seconds: lora and moslora on the tiny model, two seeds, two learning rates."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from moslora.comparison.plan import Plan, parse_plan

SHARED = ("model", "adapter", "data", "training", "evaluation")


@pytest.fixture
def tiny_settings(tmp_path: Path, write_recipe: Callable[..., Path]) -> dict[str, Any]:
    """The plan's settings, to change and to write."""
    recipe = yaml.safe_load(write_recipe(training={"save_every_steps": None}).read_text())
    del recipe["training"]["learning_rate"]
    return {
        "name": "tiny",
        "recipe": {group: recipe[group] for group in SHARED},
        "arms": {"lora": {"method": "lora"}, "moslora": {"method": "moslora"}},
        "baseline": "lora",
        "seeds": [1, 2],
        "tuning": {"learning_rates": [0.01, 0.1], "validation_samples": 4},
    }


@pytest.fixture
def tiny_plan(tiny_settings: dict[str, Any]) -> Callable[..., Plan]:
    """The plan, with changed settings at its top."""

    def build(**changes: Any) -> Plan:
        return parse_plan(tiny_settings | changes, source="plan tiny")

    return build


@pytest.fixture
def plan_file(tmp_path: Path, tiny_settings: dict[str, Any]) -> Callable[..., Path]:
    """The plan as a file, with changed settings at its top; None leaves one out."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "tiny-plan.yaml"
        settings = {name: value for name, value in (tiny_settings | changes).items() if value is not None}
        path.write_text(json.dumps(settings))  # JSON is YAML
        return path

    return write
