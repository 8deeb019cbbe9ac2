import pytest

from moslora.errors import ConfigError
from moslora.runs.explaining import explained, find
from moslora.runs.recipe import LANGUAGE, RECIPES, load_recipe
from moslora.runs.validation import validated

KINDS = pytest.mark.parametrize("kind", RECIPES)


def one(name: str):
    (found,) = find(RECIPES[LANGUAGE], name)
    return found


@KINDS
def test_every_setting_has_an_explanation_of_its_own(kind: str):
    for setting in explained(RECIPES[kind]):
        assert setting.explanation.endswith("."), setting.name
        assert setting.explanation[0].isupper() or setting.explanation[0] in "`l", setting.name


@KINDS
def test_the_settings_listed_are_those_of_a_recipe(kind: str):
    shipped = {"language": "demo", "vision_language": "vision-demo", "subject": "subject-demo"}
    recipe = load_recipe(shipped[kind]).to_dict()
    names = [*recipe]
    for group, settings in recipe.items():
        names += [f"{group}.{key}" for key in settings] if isinstance(settings, dict) and group != "adapter" else []
    assert {setting.name for setting in explained(RECIPES[kind])} == {*names, "adapter.method"}


def test_a_setting_is_told_with_its_bounds_and_default():
    warmup = one("training.warmup_ratio")
    assert (warmup.allowed, warmup.default) == ("a number, at least 0, less than 1", None)
    assert one("model.quantize").choices == ("none", "int8", "nf4")
    assert one("training.trackers").choices == ("tensorboard", "trackio", "wandb")
    assert one("data.columns").choices == ()
    assert one("model.path").is_required
    assert not one("name").is_required  # the file gives it


def test_what_the_explanation_does_not_name_is_said_beside_it():
    assert one("data.longer").described.endswith("Allowed: cut, leave_out, stop.")
    assert one("data.format").described == one("data.format").explanation


def test_a_name_without_its_group_and_a_group_are_found():
    assert [setting.name for setting in find(RECIPES[LANGUAGE], "batch_size")] == [
        "training.batch_size",
        "evaluation.batch_size",
    ]
    group = [setting.name for setting in find(RECIPES[LANGUAGE], "adapter")]
    assert group == ["adapter", "adapter.method"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.traim", "data.traim is not a setting; did you mean 'data.train'? (moslora settings lists all)"),
        ("batch_sise", "batch_sise is not a setting; did you mean 'training.batch_size'? (moslora settings lists all)"),
        ("lr", "lr is not a setting; here it is training.learning_rate (moslora settings lists all)"),
        ("adapter.r", "adapter.r is an option of the method: see moslora methods, and docs/method.md"),
    ],
)
def test_an_unknown_name_gets_the_nearest_one(name: str, message: str):
    with pytest.raises(ConfigError) as caught:
        find(RECIPES[LANGUAGE], name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"training": {"leraning_rate": 1}}, "training.leraning_rate is not a setting; did you mean 'learning_rate'?"),
        ({"data": {"train": "a", "colums": {}}}, "data.colums is not a setting; did you mean 'columns'?"),
        ({"evaluation": {"task": []}}, "evaluation.task is not a setting; did you mean 'tasks'?"),
        ({"data": {"train": "a", "epochs": 1}}, "data.epochs is not a setting; did you mean 'training.epochs'?"),
        ({"training": {"num_epochs": 1}}, "training.num_epochs is not a setting; here it is training.epochs"),
        ({"training": {"lr": 1}}, "training.lr is not a setting; here it is training.learning_rate"),
        ({"base_model": "x"}, "base_model is not a setting; here it is model.path"),
    ],
)
def test_a_typo_in_a_group_gets_the_nearest_name_of_that_group(wrong: dict, right: str):
    given = {"name": "mine", "model": {"path": "smollm2"}, "data": {"train": "everyday"}} | wrong
    with pytest.raises(ConfigError) as caught:
        validated(RECIPES[LANGUAGE], given, source="mine.yaml")
    assert str(caught.value).startswith(f"mine.yaml: {right} (")
