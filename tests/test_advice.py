"""Every command, option and setting that a message names exists, so that advice can be followed."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from moslora.adapter.methods import METHODS
from moslora.cli import COMMANDS, app
from moslora.comparison.plan import Plan
from moslora.runs.recipe import RECIPES

SOURCE = Path(__file__).parents[1] / "src" / "moslora"
COMMAND = re.compile(r"(?:^|[`:( ])moslora ([a-z]+)((?: +[^\s`]+)*)")
OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]+)")
SETTING = re.compile(r"(?<![\w./-])(model|data|training|evaluation|adapter|tuning)\.([a-z_]+)(?![\w(.]|=)")
ELSEWHERE = {"--paper", "--ink", "--muted", "--rule", "--series-"}  # names of colours in the reports' style sheet
FOREIGN = {"--enable-tower-connector-lora", "--no-deps", "--force-reinstall"}  # vLLM's and pip's
FILES = {"adapter.json", "model.safetensors"}  # and modules, all of which look like settings
PARTS = ("language_model", "text_model", "vision_tower", "vision_model", "visual", "connector", "multi_modal_projector")
MODULES = {f"model.{part}" for part in PARTS}


def texts() -> Iterator[tuple[str, str]]:
    """Where each text of the source stands, docstrings left out; what is filled in becomes `X`."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if id(node) in documented or id(node) in inner:
                continue
            place = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield place, node.value
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield place, "".join(map(str, parts))


TEXTS = [*texts()]


def parameters(name: str) -> set[str]:
    """The options of a command, and of the commands below it."""
    context = click.Context(click.Command("moslora"))
    program: Any = get_command(app)
    command: Any = program.get_command(context, name)
    below = getattr(command, "commands", {}).values()
    return {option for one in (command, *below) for parameter in one.params for option in parameter.opts}


OPTIONS = {name: parameters(name) | {"--debug", "--help", "--version"} for name in COMMANDS}


def named_commands() -> Iterator[tuple[str, str, str]]:
    for place, text in TEXTS:
        for name, rest in COMMAND.findall(text):
            yield place, name, rest


def test_every_command_that_is_named_exists_with_its_options():
    found = [*named_commands()]
    assert len(found) > 40  # the search itself works
    for place, name, rest in found:
        if name in ("of", "to", "wrote", "does"):
            continue
        assert name in COMMANDS, (place, name)
        for option in OPTION.findall(rest):
            assert option in OPTIONS[name], (place, name, option)


def test_every_option_that_is_named_exists():
    known = set().union(*OPTIONS.values()) | ELSEWHERE | FOREIGN
    for place, text in TEXTS:
        for option in OPTION.findall(text):
            assert option in known or option.startswith("--series-"), (place, option)


def test_every_setting_that_is_named_exists():
    options = set().union(*(method.options | set(method.fixed) for method in METHODS.values()))
    groups: dict[str, set[str]] = {"adapter": options | {"method"}}
    recipes = [(name, recipe) for recipe in RECIPES.values() for name in ("model", "data", "training", "evaluation")]
    for group, model in (("tuning", Plan), *recipes):
        annotation: Any = model.model_fields[group].annotation
        groups.setdefault(group, set()).update(annotation.model_fields)
    groups["adapter"] |= {"parts", "projector"}
    found = 0
    for place, text in TEXTS:
        for group, name in SETTING.findall(text):
            if f"{group}.{name}" not in FILES | MODULES:
                found += 1
                assert name in groups[group], (place, f"{group}.{name}")
    assert found > 40


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_a_commands_help_parse(name: str):
    """Each example line of a help is a call that the command understands."""
    import shlex
    from importlib import import_module

    module = import_module(f"moslora.cli.{COMMANDS[name]}")
    program: Any = get_command(app)
    for line in getattr(module, "EXAMPLES", ()):
        if line.startswith("#"):
            continue
        words = shlex.split(re.split(" [<>] ", line)[0])
        assert words[:2] == ["moslora", name], line
        command = program.get_command(click.Context(program), name)
        command.make_context(name, words[2:], resilient_parsing=False)
