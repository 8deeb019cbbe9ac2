import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result


def test_it_prints_what_it_made_and_what_a_picture_costs(
    tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path], moslora: Callable[..., Result]
):
    output, clip = tmp_path / "llava", tower_folder("clip")
    result = moslora("assemble", model_folder, clip, output, "--dtype", "float32", "--feature-layer", "-1")
    assert result.stdout == (
        f"assembled: {output} (float32, verified: tensors, text and a picture)\n"
        f"  language   {model_folder}: 102,720 parameters\n"
        f"  vision     {clip}: 27,920 parameters, layer -1\n"
        "  projector  new, seed 0: 6,272 parameters\n"
        "  pictures   <image> is token 259 (a row that was there of the embedding)\n"
        "  a picture costs 16 tokens: 28 x 28 pixels in patches of 7, features default, padding square\n"
    )
    assert (output / "processor_config.json").is_file()


def test_the_record_is_json(
    tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path], moslora: Callable[..., Result]
):
    arguments = ("assemble", model_folder, tower_folder("siglip"), tmp_path / "llava", "--pad", "crop", "--json")
    record = json.loads(moslora(*arguments).stdout)
    assert record["dtype"] == "bfloat16"
    assert (record["strategy"], record["padding"], record["tokens_per_picture"]) == ("full", "crop", 16)


def test_mistakes_are_one_line(
    tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path], refused: Callable[..., str]
):
    clip = tower_folder("clip")
    assert refused("assemble", model_folder, clip, tmp_path / "llava", "--pad", "sqare").startswith(
        "unknown pad 'sqare'; did you mean 'square'?"
    )
    assert "exists and is not an empty folder" in refused("assemble", model_folder, clip, clip)
    assert "unknown vision tower 'llama'" in refused("assemble", model_folder, model_folder, tmp_path / "llava")
    assert not (tmp_path / "llava").exists()
