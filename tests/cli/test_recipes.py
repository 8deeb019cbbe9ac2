import json

import pytest
from rich.text import Text
from typer.testing import CliRunner

from moslora.cli import app
from moslora.runs.recipe import parse_recipe, recipe_names, recipe_text
from moslora.runs.settings import read_settings
from moslora.runs.skeletons import SKELETONS


def test_the_list_names_each_recipe_on_stdout_and_the_next_step_on_stderr():
    result = CliRunner().invoke(app, ["recipes", "list"])
    assert result.exit_code == 0
    listed = Text.from_ansi(result.stdout).plain
    for name in (*recipe_names(), *SKELETONS):
        assert name in listed
    assert "moslora recipes show NAME" in result.stderr
    assert max(len(line) for line in listed.splitlines()) <= 80


def test_the_list_as_json_is_nothing_but_json():
    result = CliRunner().invoke(app, ["recipes", "list", "--json"])
    assert result.stderr == ""
    listed = json.loads(result.stdout)
    assert [recipe["name"] for recipe in listed if not recipe["is_skeleton"]] == recipe_names()
    assert [recipe["name"] for recipe in listed if recipe["is_skeleton"]] == [*SKELETONS]
    assert set(listed[0]) == {"name", "summary", "model", "method", "data", "is_skeleton"}


@pytest.mark.parametrize("name", [*recipe_names(), *SKELETONS])
def test_a_shown_recipe_is_the_commented_file_itself(name: str):
    result = CliRunner().invoke(app, ["recipes", "show", name])
    assert result.exit_code == 0
    assert result.stdout == recipe_text(name)
    assert result.stderr == ""
    parse_recipe({"name": name, **read_settings(result.stdout, source=name)}, source=name)


def test_showing_an_unknown_recipe_is_a_mistake_of_one_line():
    result = CliRunner().invoke(app, ["recipes", "show", "dmo"])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: unknown recipe 'dmo'; did you mean 'demo'? "
        "(moslora recipes list lists all; your own: a path ending in .yaml or .yml)\n"
    )
