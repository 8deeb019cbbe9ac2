import json
from collections.abc import Callable

from typer.testing import Result

Moslora = Callable[..., Result]


def test_all_settings_are_listed_in_eighty_columns(moslora: Moslora):
    result = moslora("settings")
    for name in ("max_length_tokens", "learning_rate", "quantize", "scoring"):
        assert f"  {name} " in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert "moslora methods" in result.stderr


def test_one_setting_is_explained_in_full(moslora: Moslora):
    assert moslora("settings", "training.learning_rate").stdout == (
        "training.learning_rate\nThe highest learning rate, reached after the warm-up.\n"
        "allowed  a number, more than 0\ndefault  0.0003\n"
    )


def test_a_setting_without_a_default_says_how_it_is_given(moslora: Moslora):
    result = moslora("settings", "model.path")
    assert "default  required" in result.stdout
    assert "--set model.path=VALUE" in result.stderr


def test_the_settings_of_another_kind(moslora: Moslora):
    assert "image_folder" in moslora("settings", "--kind", "vision_language").stdout
    assert "image_folder" not in moslora("settings").stdout


def test_settings_as_json_are_nothing_but_json(moslora: Moslora):
    (found,) = json.loads(moslora("settings", "data.longer", "--json").stdout)
    assert found["name"] == "data.longer"
    assert found["default"] == "cut"
    assert found["allowed"] == "cut, leave_out, stop"


def test_an_unknown_setting_and_an_unknown_kind_are_mistakes_of_one_line(refused: Callable[..., str]):
    assert refused("settings", "data.longr").startswith("data.longr is not a setting; did you mean 'data.longer'?")
    assert refused("settings", "--kind", "vision").startswith("unknown kind of run 'vision'")
