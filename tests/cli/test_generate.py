from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def test_a_prompt_is_answered_on_stdout(finished: Path, moslora: Moslora):
    first = moslora("generate", finished, "Say a.", "--max-new-tokens", "8")
    again = moslora("generate", finished, "Say a.", "--max-new-tokens", "8")
    assert first.stdout == again.stdout
    assert "Say a." not in first.stdout
    assert len(first.stdout) > 1
    assert first.stderr == ""


def test_sampling_follows_its_seed(finished: Path, moslora: Moslora):
    options = ("Say a.", "--max-new-tokens", "12", "--temperature", "1.5")
    texts = [moslora("generate", finished, *options, "--seed", seed).stdout for seed in ("1", "1", "2")]
    assert texts[0] == texts[1] != texts[2]


def test_a_chat_goes_on_until_an_empty_line(finished: Path, moslora: Moslora):
    result = moslora("generate", finished, "--chat", "--max-new-tokens", "4", stdin="Hello\nAgain\n\nnot read\n")
    alone = moslora("generate", finished, "--chat", "--max-new-tokens", "4", stdin="Hello\n")
    assert result.stdout.startswith(alone.stdout)
    assert len(result.stdout) > len(alone.stdout)
    assert "an empty line, or Ctrl-D, ends it" in result.stderr


def test_a_chat_needs_a_template_of_the_base_or_of_what_was_trained(
    tmp_path: Path, finished: Path, moslora: Moslora, refused: Refused, model_folder: Path
):
    import shutil

    shutil.copytree(model_folder, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    moslora("generate", finished, "--chat", "--base", tmp_path / "base", "--max-new-tokens", "2", stdin="Hello\n")
    (finished / "adapter" / "chat_template.jinja").unlink()
    message = refused("generate", finished, "--chat", "--base", tmp_path / "base")
    assert (
        message
        == "this model's tokenizer has no chat template: leave out --chat, and choose --prompt-style alpaca or plain"
    )


def test_a_prompt_and_a_chat_exclude_each_other(finished: Path, refused: Refused):
    expected = "give one of: a prompt, --prompts FILE (pictures), or --chat (text)"
    assert refused("generate", finished) == expected
    assert refused("generate", finished, "Hello", "--chat") == expected
