from pathlib import Path

import pytest

from moslora.errors import ConfigError
from moslora.runs.recipe import load_recipe
from moslora.runs.settings import changed_settings, told_changes


def message(name_or_path: str | Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name_or_path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("5E-4", 5e-4), (".5", 0.5), ("1", 1.0), ("0.25", 0.25), ("+2e0", 2.0)],
)
def test_numbers_are_written_as_one_writes_numbers(text: str, value: float):
    assert load_recipe("demo", [f"training.learning_rate={text}"]).training.learning_rate == value


def test_overrides_are_yaml_and_the_last_one_counts():
    recipe = load_recipe(
        "demo",
        [
            "seed=1",
            "seed=2",
            "adapter.target_modules=[q_proj, v_proj]",
            "adapter.rank_pattern.q_proj=8",
            "training.max_steps=null",
        ],
    )
    assert recipe.seed == 2
    assert recipe.adapter.options["target_modules"] == ["q_proj", "v_proj"]
    assert recipe.adapter.options["rank_pattern"] == {"q_proj": 8}
    assert recipe.training.max_steps is None


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("seed", "--set 'seed' is not key=value; write for example --set training.epochs=1"),
        ("=3", "--set '=3' is not key=value"),
        ("training..epochs=3", "--set 'training..epochs=3' is not key=value"),
        ("seed=[1", "--set 'seed=[1': the value is not valid YAML: "),
        ("seed.x=1", "recipe demo: seed is 42, so it has no setting 'x'"),
        ("adapter.r.x=1", "recipe demo: adapter.r is 16, so it has no setting 'x'"),
    ],
)
def test_an_override_that_cannot_be_applied_is_shown(assignment: str, expected: str):
    assert expected in message("demo", assignment)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: [\n", "mine.yaml, line 2: not valid YAML: "),
        ("a: 1\n\tb: 2\n", "mine.yaml, line 2: not valid YAML: "),
        ("seed: 1\nseed: 2\n", "mine.yaml, line 2: not valid YAML: 'seed' is set twice"),
        ("3: 1\n", "mine.yaml, line 1: not valid YAML: the key 3 is not text"),
        ("a: !!python/object/apply:os.getcwd []\n", "mine.yaml, line 1: not valid YAML: could not determine"),
        ("- a\n", "mine.yaml holds the list [a]; it needs settings such as 'seed: 42', one per line"),
        ("", "mine.yaml is empty; it needs settings"),
        ("model: {path: x}\n", "mine.yaml: data.train is missing; add it to the file or give --set data.train=VALUE"),
        ("data: {train: everyday}\nmodel: {dtype: auto}", "mine.yaml: model.path is missing"),
    ],
)
def test_a_broken_file_names_the_file_and_the_line(tmp_path: Path, text: str, expected: str):
    assert expected in message(write(tmp_path, text))


def test_changed_settings_are_told_with_both_values_and_not_all_of_them():
    was = {"adapter": {"r": 4}, "seed": 1, "training": {"epochs": 1, "max_steps": None}}
    now = {"adapter": {"r": 8}, "seed": 2, "training": {"epochs": 2, "max_steps": 9}}
    told = told_changes(changed_settings(was, now))
    assert told == "adapter.r was 4, is 8; seed was 1, is 2; training.epochs was 1, is 2; 1 more"
