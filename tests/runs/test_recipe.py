import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moslora.data.tasks import COMMONSENSE
from moslora.errors import ConfigError
from moslora.runs.recipe import SKELETONS, Recipe, list_recipes, load_recipe, parse_recipe, recipe_names, recipe_text

SMALLEST = "model: {path: smollm2}\ndata: {train: everyday}\n"


def message(name_or_path: str | Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name_or_path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_valid_and_named_after_its_file(name: str):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_starts_with_what_it_needs_and_brings(name: str):
    summary, *header = recipe_text(name).splitlines()
    assert summary.startswith("# ")
    for entry, line in zip(("command", "hardware", "time", "score"), header[1:5], strict=True):
        assert line.split()[1] == entry
    assert f"moslora train {name}" in header[1]


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_being_written_and_read_again(tmp_path: Path, name: str):
    recipe = load_recipe(name)
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe
    assert parse_recipe(recipe.to_dict(), source="record") == recipe


def test_the_demo_is_what_its_header_promises():
    recipe = load_recipe("demo")
    assert recipe.model.path == "smollm2"
    assert recipe.adapter.method == "moslora"
    assert (recipe.adapter.options["r"], recipe.adapter.options["lora_alpha"]) == (16, 32)
    assert recipe.data.train == "everyday"
    assert recipe.data.loss_on == "response"
    assert recipe.evaluation.tasks == ["everyday"]
    assert recipe.evaluation.before
    assert recipe.evaluation.question_removed
    assert recipe.evaluation.agreement_questions == 40


def test_the_commonsense_recipe_has_the_settings_of_the_paper():
    recipe = load_recipe("commonsense-llama3-8b")
    assert recipe.adapter.options == {
        "r": 16,
        "lora_alpha": 32,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
        "mixer": "kaiming",
    }
    training, data = recipe.training, recipe.data
    assert (training.batch_size, training.epochs, training.learning_rate, training.warmup_steps) == (16, 3, 3e-4, 100)
    assert (data.max_length_tokens, data.validation_samples) == (256, 120)
    assert (data.loss_on, data.prompt) == ("sequence", "alpaca")
    assert training.keep_best
    assert training.precision == "fp16"
    assert sorted(recipe.evaluation.tasks) == sorted(COMMONSENSE)
    assert recipe.evaluation.scoring == "generation"


def test_the_list_summarises_each_shipped_recipe():
    listed = {recipe.name: recipe for recipe in list_recipes()}
    assert list(listed) == recipe_names()
    assert listed["demo"].model == "smollm2"
    assert listed["demo"].summary in recipe_text("demo")


def test_a_file_needs_only_a_model_and_data_and_is_named_after_itself(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, SMALLEST))
    assert recipe.name == "mine"
    assert recipe.adapter.method == "moslora"
    assert recipe.adapter.options == {}
    assert recipe.seed == 42


def test_an_empty_group_counts_as_not_given(tmp_path: Path):
    assert load_recipe(write(tmp_path, SMALLEST + "training:\nadapter:\n")).training.epochs == 3


def test_adapter_options_are_kept_as_given(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, SMALLEST + "adapter: {method: dora, r: 8, rank_pattern: {q_proj: 4}, odd: x}"))
    assert recipe.adapter.method == "dora"
    assert recipe.adapter.options == {"r": 8, "rank_pattern": {"q_proj": 4}, "odd": "x"}


def test_an_override_may_fill_in_what_the_file_lacks(tmp_path: Path):
    path = write(tmp_path, "data:\n  train: everyday\nmodel:\n")
    assert load_recipe(path, ["model.path=smollm2"]).model.path == "smollm2"


def test_an_adapter_option_set_to_null_is_taken_back():
    recipe = load_recipe("commonsense-llama3-8b", ["adapter.method=lora", "adapter.mixer=null"])
    assert "mixer" not in recipe.adapter.options


def test_an_override_keeps_colons_and_equal_signs_in_its_value():
    recipe = load_recipe("demo", ["data.train=owner/name:config", "evaluation.data=/a=b"])
    assert recipe.data.train == "owner/name:config"
    assert recipe.evaluation.data == "/a=b"


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert message(path) == f"cannot read the recipe file {path}: it is not UTF-8 text"


def test_a_missing_file_names_its_neighbours(tmp_path: Path):
    path = write(tmp_path, SMALLEST)
    expected = f"there is no recipe file {tmp_path}/mime.yaml; did you mean '{path}'?"
    assert message(tmp_path / "mime.yaml").startswith(expected)


def test_a_folder_is_not_a_recipe(tmp_path: Path):
    assert message(tmp_path).startswith(f"{tmp_path} is a folder; give a YAML file")


def test_an_unknown_name_gets_the_nearest_one_or_the_list_of_all():
    assert message("dmo") == (
        "unknown recipe 'dmo'; did you mean 'demo'? "
        "(moslora recipes list lists all; your own: a path ending in .yaml or .yml)"
    )
    assert message("zzz") == (
        f"unknown recipe 'zzz' (shipped: {', '.join(recipe_names())}; skeletons: {', '.join(SKELETONS)};"
        " your own: a path ending in .yaml or .yml)"
    )


def test_accumulation_divides_the_batch_over_the_devices():
    training = load_recipe("demo", ["training.batch_size=16", "training.micro_batch_size=4"]).training
    assert training.accumulation_steps() == 4
    assert training.accumulation_steps(devices=2) == 2
    with pytest.raises(ConfigError, match=r"16 is not a multiple of training\.micro_batch_size 4 x 3 devices"):
        training.accumulation_steps(devices=3)


def test_a_batch_without_micro_batches_is_shared_by_the_devices():
    training = load_recipe("demo").training
    assert training.accumulation_steps() == 1
    assert training.accumulation_steps(devices=8) == 1
    with pytest.raises(ConfigError, match=r"training\.batch_size 8 is not a multiple of"):
        training.accumulation_steps(devices=3)


def test_the_written_recipe_names_every_setting():
    written = yaml.safe_load(load_recipe("demo").to_yaml())
    assert list(written) == list(Recipe.model_fields)
    assert written["training"]["weight_decay"] == 0.0
    assert written["adapter"]["lora_alpha"] == 32


def test_a_recipe_cannot_be_changed_after_it_was_checked():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("demo").seed = 1  # type: ignore[misc]


def test_reading_recipes_imports_no_heavy_library():
    code = (
        "import sys; from moslora.runs.recipe import load_recipe; import moslora.runs.folder; load_recipe('demo'); "
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
