"""Answers in text: one prompt, files of them, standard input, with and without the adapter, and chats."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import Result

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def test_a_prompt_is_answered_on_stdout(finished: Path, moslora: Moslora):
    first = moslora("generate", finished, "Say a.", "--max-new-tokens", "8")
    again = moslora("generate", finished, "Say a.", "--max-new-tokens", "8")
    assert first.stdout == again.stdout
    assert "Say a." not in first.stdout
    assert len(first.stdout) > 1
    assert first.stderr == "the answer was cut at 8 tokens (--max-new-tokens)\n"


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
    expected = "give one of: a prompt, --prompts FILE, or --chat"
    assert refused("generate", finished) == expected
    assert refused("generate", finished, "Hello", "--chat") == expected


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


SHORT = ("--max-new-tokens", "6")
PROMPTS = ["Say a.", "Name a bird that sings in the garden.", "Why?", "Count to three, slowly."]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeff" + "\r\n".join([*PROMPTS[:2], "", *PROMPTS[2:]]) + "\r\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("size", ["1", "3", "8"])
def test_a_file_of_prompts_is_answered_alike_in_any_batch_size(size, finished, prompts, moslora: Moslora):
    found = objects(moslora("generate", finished, "--prompts", prompts, *SHORT, "--batch-size", size, "--json").stdout)
    assert [one["prompt"] for one in found] == PROMPTS
    assert [sorted(one) for one in found] == [["answer", "prompt", "tokens"]] * 4
    for one in found:
        alone = moslora("generate", finished, one["prompt"], *SHORT).stdout
        assert alone == f"{one['answer']}\n"
        assert one["tokens"] <= 6


def test_sampled_answers_do_not_depend_on_what_else_is_asked(finished, prompts, moslora: Moslora):
    how = (*SHORT, "--temperature", "1.5", "--seed", "3", "--json")
    found = objects(moslora("generate", finished, "--prompts", prompts, *how).stdout)
    assert found[1] == objects(moslora("generate", finished, PROMPTS[1], *how).stdout)[0]


def test_samples_are_asked_with_their_input_and_system_message(finished, tmp_path, moslora: Moslora):
    rows = [
        {"id": "x", "instruction": "Translate.", "input": "a wren", "output": "not read"},
        {"instruction": "Translate.", "input": "an owl", "system": "You are terse."},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "not read"}]},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    how = ("--max-new-tokens", "24")
    found = objects(moslora("generate", finished, "--prompts", tmp_path / "p.jsonl", *how, "--json").stdout)
    assert [one.get("id") for one in found] == ["x", None, None]
    assert [one["prompt"] for one in found] == ["Translate.\na wren", "Translate.\nan owl", "Hello"]

    def alone(*arguments: str, **options: Any) -> str:
        return moslora("generate", finished, *arguments, *how, **options).stdout.removesuffix("\n")

    said = [one["answer"] for one in found]
    assert alone("Translate.", "--input", "a wren") == said[0]
    assert alone("Translate.", "--input", "-", stdin="a wren\n") == said[0]
    assert alone("Translate.", "--input", "an owl", "--system", "You are terse.") == said[1]
    assert alone("Translate.", "--input", "an owl") != said[1]
    assert alone("--chat", stdin="Hello\n") == said[2]


def test_standard_input_is_the_prompt(finished, moslora: Moslora):
    given = moslora("generate", finished, "Say a.\nNow.", *SHORT).stdout
    assert moslora("generate", finished, *SHORT, stdin="Say a.\nNow.\n").stdout == given
    assert moslora("generate", finished, "-", *SHORT, stdin="Say a.\nNow.\n").stdout == given


def test_standard_input_may_hold_a_prompt_per_line(finished, moslora: Moslora, tmp_path: Path):
    (tmp_path / "p.txt").write_text("Say a.\n\nNow.\n")
    given = moslora("generate", finished, "--prompts", tmp_path / "p.txt", *SHORT).stdout
    assert given.startswith("> Say a.\n")
    assert moslora("generate", finished, "--prompts", "-", *SHORT, stdin="Say a.\n\nNow.\n").stdout == given


def test_base_and_adapter_answer_the_same_prompt(finished, prompts, model_folder, moslora: Moslora):
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer, LlamaForCausalLM

    weights = finished / "adapter" / "adapter_model.safetensors"
    torch.manual_seed(0)
    save_file({name: torch.randn_like(value) for name, value in load_file(weights).items()}, weights)
    found = objects(moslora("generate", finished, "--prompts", prompts, *SHORT, "--compare-base", "--json").stdout)
    model, tokenizer = LlamaForCausalLM.from_pretrained(model_folder), AutoTokenizer.from_pretrained(model_folder)
    for one in found:
        asked = tokenizer(f"{one['prompt']}\nResponse:\n", return_tensors="pt")
        new = model.generate(**asked, do_sample=False, max_new_tokens=6)[0, asked["input_ids"].shape[1] :]
        assert one["base_answer"] == tokenizer.decode(new, skip_special_tokens=True)
        assert one["base_tokens"] == len([token for token in new if token != tokenizer.eos_token_id])
    assert any(one["base_answer"] != one["answer"] for one in found)
    shown = moslora("generate", finished, "Why?", *SHORT, "--compare-base").stdout
    assert shown.index("base") < shown.index("adapter")


def test_answers_are_written_as_lines_or_as_files_and_never_over_others(finished, prompts, tmp_path, moslora, refused):
    how = ("generate", finished, "--prompts", prompts, *SHORT, "--output")
    lines, folder = tmp_path / "out.jsonl", tmp_path / "out"
    assert moslora(*how, lines).stdout == f"4 answers: {lines}\n"
    moslora(*how, folder, "--compare-base")
    said = [one["answer"] for one in objects(lines.read_text())]
    assert [path.name for path in sorted((folder / "adapter").iterdir())] == [f"000{n}.txt" for n in (1, 2, 3, 4)]
    assert [path.read_text() for path in sorted((folder / "adapter").iterdir())] == [f"{text}\n" for text in said]
    before = lines.read_text()
    assert refused(*how, lines) == f"{lines} exists: choose another name, or remove it"
    assert refused(*how, folder) == f"{folder} exists and is not an empty folder: choose another one, or remove it"
    assert "ends in .jsonl" in refused(*how, tmp_path / "out.txt")
    assert lines.read_text() == before


def test_folders_of_answers_are_what_judges_are_served(finished, prompts, tmp_path, moslora: Moslora):
    from moslora.errors import DataError
    from moslora.judging.material import TEXT, read_material

    for name in ("one", "two"):
        how = ("generate", finished, "--prompts", prompts, *SHORT, "--output", tmp_path / name)
        moslora(*how, *(["--compare-base"] if name == "two" else []))
    material = read_material([str(tmp_path / "one"), str(tmp_path / "two")])
    assert (material.kind, material.methods) == (TEXT, ("one", "two"))
    assert [item.prompt for item in material.items] == PROMPTS
    within = read_material([str(tmp_path / "two" / name) for name in ("base", "adapter")])
    assert [item.prompt for item in within.items] == PROMPTS
    table = tmp_path / "one" / "prompts.csv"
    table.write_text(table.read_text().replace("Why?", "How?"))
    with pytest.raises(DataError, match="have different prompts for '0003'"):
        read_material([str(tmp_path / "one"), str(tmp_path / "two")])


def test_a_chat_can_be_reset_and_given_a_system_message(finished, moslora: Moslora):
    def chat(*lines: str) -> list[str]:
        answers = moslora("generate", finished, "--chat", *SHORT, stdin="\n".join(lines) + "\n").stdout
        return answers.split("\n")

    def last(*lines: str) -> str:
        return "\n".join(chat(*lines))

    first = last("Hello")
    assert last("Hello", "/reset", "Hello").rstrip("\n") == f"{first}{first}".rstrip("\n")
    terse = last("/system You are terse.", "Hello")
    assert terse != first
    assert last("Hi", "/system You are terse.", "Hello").endswith(terse)
    started = moslora("generate", finished, "--chat", *SHORT, "--system", "You are terse.", stdin="Hello\n")
    assert started.stdout == terse
    told = moslora("generate", finished, "--chat", *SHORT, stdin="/help\n")
    assert "no command /help (there are: /reset, /system TEXT)" in told.stderr


def test_a_chat_goes_on_after_a_turn_that_has_no_room(finished, moslora: Moslora):
    result = moslora("generate", finished, "--chat", *SHORT, stdin=f"{'long ' * 200}\nHello\n")
    assert "not answered: the chat has" in result.stderr
    assert result.stdout == moslora("generate", finished, "--chat", *SHORT, stdin="Hello\n").stdout


def test_ctrl_c_stops_an_answer_and_keeps_the_chat(finished, capsys: pytest.CaptureFixture[str]):
    from moslora.runs.adapters import load_adapted, open_adapter
    from moslora.runs.kinds.conversing import Conversation
    from moslora.runs.kinds.speaking import Speaker

    model, tokenizer = load_adapted(open_adapter(finished))
    chat = Conversation(Speaker(model, tokenizer, style="chat", max_new_tokens=12))
    former, calls = signal.getsignal(signal.SIGINT), []

    def interrupt(*_arguments: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    handle = model.get_base_model().register_forward_hook(interrupt)
    spoken = chat.answer("Hello")
    handle.remove()
    whole = Conversation(Speaker(model, tokenizer, style="chat", max_new_tokens=12)).answer("Hello")
    assert spoken.tokens == len(calls) == 3
    assert whole.tokens == 12
    assert not spoken.is_cut
    assert [turn["role"] for turn in chat.turns] == ["user", "assistant"]
    assert signal.getsignal(signal.SIGINT) is former
    assert chat.answer("Again").tokens
    assert capsys.readouterr().out.startswith(spoken.text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chat", "--json"], "a chat is held on the screen alone: leave out --json, or give a prompt without --chat"),
        (["Hi", "--image", "x.png"], "sees no pictures: leave out --image"),
        (["Hi", "--compare-base", "--temperature", "1"], "leave out --temperature"),
        (["Hi", "--with", "style.safetensors", "--seeds", "4"], "answers in text: leave out --seeds and --with"),
        (["-", "--input", "-"], "standard input is the prompt or --input, not both: write one of them out"),
        (["--prompts", "-", "--input", "-"], "standard input is --prompts or --input, not both"),
        (["long " * 300], "ask for fewer with --max-new-tokens"),
        (["--prompts", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_line(options, message, finished, refused: Refused):
    assert message in refused("generate", finished, *options)


def test_a_full_model_has_no_adapter_to_take_away(model_folder, refused: Refused):
    how = ("generate", model_folder, "Hi", "--prompt-style", "plain", "--compare-base")
    assert "holds no adapter to take away: leave out --compare-base" in refused(*how)


def test_a_base_model_answers_through_its_chat_template(model_folder, moslora: Moslora):
    turn = moslora("generate", model_folder, "Hello", *SHORT).stdout
    assert turn == moslora("generate", model_folder, "--chat", *SHORT, stdin="Hello\n").stdout
