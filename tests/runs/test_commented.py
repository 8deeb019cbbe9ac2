import pytest
import yaml

from moslora.runs.commented import WIDTH, commented, yaml_value
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.recipe import parse_recipe
from moslora.runs.settings import read_settings

CHOSEN = {
    "model": {"path": "smollm2"},
    "data": {"train": "my file.jsonl", "columns": {"output": "the answer"}, "format": "instruction"},
    "training": {"learning_rate": 3e-4, "max_steps": 5},
}


def written(*, complete: bool, reasons: dict[str, str] | None = None) -> str:
    return commented(LanguageRecipe, CHOSEN, head="# Mine", reasons=reasons or {}, complete=complete)


@pytest.mark.parametrize("complete", [True, False])
def test_what_is_written_is_read_back_as_it_was(complete: bool):
    text = written(complete=complete)
    read = {name: value for name, value in read_settings(text, source="text").items() if value is not None}
    assert read == CHOSEN
    parse_recipe({"name": "mine", **read}, source="text")


@pytest.mark.parametrize(
    "value",
    ["plain", "my file.jsonl", "1e-3", "null", "No", "a: b", "# no", "it's", 'say "x"', "日本", "", "3", "-x", "a,b"],
)
def test_text_is_quoted_where_yaml_would_read_something_else(value: str):
    assert read_settings(f"key: {yaml_value(value)}  # comment", source="text") == {"key": value}
    assert read_settings(f"key: [{yaml_value(value)}, {yaml_value(value)}]", source="text") == {"key": [value, value]}


@pytest.mark.parametrize("value", [3e-4, 1e-5, 2, True, False, 0.1, {"a b": 2.0, "c": 1.0}, [], {}])
def test_numbers_truth_values_and_groups_stay_what_they_are(value: object):
    assert read_settings(f"key: {yaml_value(value)}", source="text") == {"key": value}


def test_a_reason_takes_the_place_of_the_explanation():
    text = written(complete=False, reasons={"training.max_steps": "because I say so"})
    assert "  max_steps: 5                      # because I say so\n" in text


def test_no_line_is_wider_than_an_editor_shows():
    assert max(map(len, written(complete=True).splitlines())) <= WIDTH


def test_a_value_that_fills_the_line_has_its_comment_above():
    long = commented(
        LanguageRecipe, {"data": {"train": "x" * 90}}, head="", reasons={"data.train": "the samples"}, complete=False
    )
    assert f"  # the samples\n  train: {'x' * 90}\n" in long


def test_a_comment_taken_away_leaves_a_valid_setting():
    """Every setting that stands as a comment with a value can be switched on by taking its '#' away."""
    for line in written(complete=True).splitlines():
        code = line.partition("  #" if not line.lstrip().startswith("#") else "   #")[0]
        if code.strip().startswith("# ") and ":" in code and not code.strip().startswith("# and"):
            assert isinstance(yaml.safe_load(code.replace("# ", "", 1).strip()), dict), line
