import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import Result

from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe

Moslora = Callable[..., Result]
PAIRS = [{"question": f"Say {word} {n}.", "answer": word * n} for n in range(1, 9) for word in "abcd"]
CHAT = {"messages": [{"role": "user", "content": "Say a."}, {"role": "assistant", "content": "a"}]}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def init(moslora: Moslora, model_folder: Path) -> Moslora:
    def run(*arguments: str | Path, **options) -> Result:
        return moslora("init", *arguments, "--model", model_folder, **options)

    return run


def write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_the_recipe_trains_as_it_is(init: Moslora, model_folder: Path):
    result = init(write("my pairs.jsonl", PAIRS))
    assert result.stdout.endswith("written   my-pairs.yaml\nnext      moslora train my-pairs.yaml\n")
    recipe = load_recipe("my-pairs.yaml", ["training.max_steps=2", "training.evaluate_every_steps=1"])
    assert recipe.data.columns == {"instruction": "question", "output": "answer"}
    assert (recipe.model.path, recipe.data.validation_samples) == (str(model_folder), 3)
    assert run_recipe(recipe, Path("run"), progress=False).validation_loss is not None


def test_what_was_seen_and_chosen_is_told_in_a_few_lines(init: Moslora):
    lines = init(write("pairs.jsonl", PAIRS)).stdout.splitlines()
    assert lines[0] == "data      pairs.jsonl: 32 samples, format instruction (question as instruction,"
    told = " ".join(line[10:] for line in lines[: lines.index("")])
    for part in ("99 % at most", "cores", "samples a step", "tokens a sample", "3 samples not trained on"):
        assert part in told
    assert max(map(len, lines)) <= 80


def test_samples_are_shown_with_what_is_learned_marked(init: Moslora):
    text = init(write("pairs.jsonl", PAIRS)).stdout
    _, _, samples = text.partition("\nsample 1; what is learned stands between « and »\n")
    first, second = samples.split("\nsample 2\n")
    assert first.splitlines()[-1] == "  «a<|end|>»"
    assert "Say b 1." in second
    assert "«b<|end|>»" in second


def test_a_sample_that_cannot_be_used_is_left_out_and_named(init: Moslora):
    bad = {"question": "Say nothing.", "answer": ""}
    text = init(write("pairs.jsonl", [*PAIRS, bad]), "--set", "data.validation_samples=2").stdout
    assert text.startswith("data      pairs.jsonl: 32 samples, 1 left out, format instruction")
    told = " ".join(text.split())
    assert "left out pairs.jsonl: 1 sample that cannot be used was left out (sample 33: field 'output' is ''" in told
    recipe = Path("pairs.yaml").read_text()
    assert recipe.startswith("# pairs.jsonl: 32 samples, 1 left out\n")
    assert "  on_bad: skip                      # pairs.jsonl: 1 sample that cannot be used" in recipe
    assert load_recipe("pairs.yaml").data.on_bad == "skip"


def test_nothing_is_said_of_bad_samples_where_there_are_none(init: Moslora):
    text = init(write("pairs.jsonl", PAIRS)).stdout
    assert "left out" not in text
    assert "on_bad" not in Path("pairs.yaml").read_text()


def test_many_samples_that_cannot_be_used_are_refused(refused: Callable[..., str], model_folder: Path):
    write("pairs.jsonl", [*PAIRS, *[{"question": "Say nothing.", "answer": ""}] * 2])
    message = refused("init", "pairs.jsonl", "--model", model_folder)
    assert message.startswith("pairs.jsonl: 2 of 34 samples cannot be used")
    assert not Path("pairs.yaml").exists()


def test_a_model_without_a_chat_template_gets_one(moslora: Moslora, tmp_path: Path, model_folder: Path):
    bare = shutil.copytree(model_folder, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    moslora("init", write("chats.jsonl", [CHAT] * 4), "--set", f"model.path={bare}")
    assert load_recipe("chats.yaml").data.chat_template == "plain"


CALL = {"type": "function", "function": {"name": "say", "arguments": '{"what": "a"}'}}
CALLING = {
    "tools": [{"type": "function", "function": {"name": "say"}}],
    "messages": [
        CHAT["messages"][0],
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "a"},
        CHAT["messages"][1],
    ],
}


@pytest.fixture
def chatml_folder(tmp_path: Path, model_folder: Path) -> Path:
    """The model with ChatML's tokens."""
    folder = shutil.copytree(model_folder, tmp_path / "chatml")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    return folder


def test_chats_with_tools_get_a_template_that_shows_them(moslora: Moslora, chatml_folder: Path):
    write("chats.jsonl", [CALLING] * 4)
    text = moslora("init", "chats.jsonl", "--model", chatml_folder).stdout
    assert load_recipe("chats.yaml").data.chat_template == "chatml-tools"
    told = "chosen chat template chatml-tools (the samples have tools, which the model's own does not show)"
    assert told in " ".join(text.split())
    assert '«<tool_call>\n  {"name": "say", "arguments": {"what": "a"}}\n  </tool_call><|im_end|>»' in text
    moslora("init", "chats.jsonl", "--model", chatml_folder, "-o", "b.yaml", "--set", "data.ignore=tools")
    assert load_recipe("b.yaml").data.chat_template == "chatml-tools"  # its calls are still there
    write("others.jsonl", [CHAT] * 4)
    moslora("init", "others.jsonl", "--model", chatml_folder)
    assert load_recipe("others.yaml").data.chat_template is None


def test_tools_that_no_template_shows_are_refused_once_with_the_next_step(
    refused: Callable[..., str], chatml_folder: Path
):
    write("chats.jsonl", [CALLING] * 4)
    where = ["init", "chats.jsonl", "--model", chatml_folder]
    assert refused(*where, "--set", "data.chat_template=zephyr") == (
        "chats.jsonl: 4 of 4 samples cannot be used, and data.on_bad skip leaves out at most 5%: sample 1: the chat"
        " template leaves out the field 'tools'; choose one that shows tools: --set data.chat_template=chatml-tools"
        " [and 3 more like it]; or take such samples out of the file"
    )
    assert "message 2 says nothing without its tool_calls, which data.ignore takes out: take tool_calls off" in refused(
        *where, "--set", "data.ignore=[tools, tool_calls]"
    )


def test_multiple_choice_questions_are_trained_on_as_they_are_asked(init: Moslora):
    quiz = write("quiz.jsonl", [{"question": "Which is a?", "choices": ["a", "b"], "answer": "a"}] * 4)
    text = init(quiz).stdout
    assert load_recipe("quiz.yaml").data.format == "choice"
    assert "  Which is a?\n  \n  A. a\n  B. b\n" in text
    assert "«the correct answer is A<|end|>»" in text


def test_every_choice_in_the_file_has_a_comment(init: Moslora):
    init(write("pairs.jsonl", PAIRS))
    for line in Path("pairs.yaml").read_text().splitlines():
        if line.startswith("  ") and not line.strip().startswith("#"):
            assert "  # " in line or "path:" in line, line


def test_chats_and_texts_have_their_own_settings(init: Moslora):
    init(write("chats.jsonl", [CHAT] * 4))
    init(write("texts.jsonl", [{"body": "some words of a text " * 9}] * 4))
    assert load_recipe("chats.yaml").data.format == "chat"
    texts = load_recipe("texts.yaml").data
    assert (texts.format, texts.columns, texts.packing, texts.loss_on) == ("text", {"text": "body"}, True, "sequence")


def test_pieces_of_one_long_text_are_held_out(init: Moslora):
    text = init(
        write("book.jsonl", [{"text": "some words of a text " * 9}]), "--set", "data.max_length_tokens=16"
    ).stdout
    (line,) = [line for line in text.splitlines() if line.startswith("lengths ")]
    assert line.endswith(" tokens")
    assert "half have" not in line
    assert load_recipe("book.yaml").data.validation_samples > 0
    assert " 1 samples" not in text


def test_questions_of_ones_own_judge_the_run(init: Moslora):
    questions = write("quiz.jsonl", [{"question": "Which is a?", "choices": ["a", "b"], "answer": "a"}])
    init(write("pairs.jsonl", PAIRS), "--task", questions)
    evaluation = load_recipe("pairs.yaml").evaluation
    assert (evaluation.tasks, evaluation.before) == (["quiz.jsonl"], True)
    assert "moslora evaluate runs/pairs --task quiz.jsonl\n" in Path("pairs.yaml").read_text()


def test_what_is_set_stays_as_it_was_said(init: Moslora):
    init(write("pairs.jsonl", PAIRS), "--set", "adapter.r=4", "--set", "data.max_length_tokens=40", "--set", "seed=7")
    recipe = load_recipe("pairs.yaml")
    assert (recipe.adapter.options["r"], recipe.data.max_length_tokens, recipe.seed) == (4, 40, 7)
    assert "# given with --set" in Path("pairs.yaml").read_text()


def test_a_length_that_some_samples_exceed_is_told_with_what_becomes_of_them(init: Moslora):
    long = [{"question": "Say a word.", "answer": "a " * 80}] * 4
    text = init(write("pairs.jsonl", [*PAIRS, *long]), "--set", "data.max_length_tokens=40").stdout
    told = "40 tokens a sample (given with --set; 4 of 36 are longer and will be left out, the longest sample has "
    assert told in " ".join(text.split())
    data = load_recipe("pairs.yaml").data
    assert (data.max_length_tokens, data.longer) == (40, "leave_out")
    assert "# given with --set; 4 of 36 are longer" in Path("pairs.yaml").read_text()


def test_as_json_is_nothing_but_json(init: Moslora):
    found = json.loads(init(write("pairs.jsonl", PAIRS), "--json", "--output", "own.yaml").stdout)
    assert found["path"] == "own.yaml"
    assert found["recipe"]["name"] == "own"
    assert found["steps"] > 0


def test_on_a_terminal_it_asks_what_the_data_do_not_tell(model_folder: Path):
    write("odd.jsonl", [{"en": f"one {n}", "fr": f"un {n}"} for n in range(4)])
    terminal, other_end = pty.openpty()
    command = [sys.executable, "-m", "moslora", "init", "odd.jsonl", "--model", str(model_folder)]
    process = subprocess.Popen(command, stdin=other_end, stderr=other_end, stdout=subprocess.PIPE)
    os.close(other_end)
    os.write(terminal, b"de\nen\n")  # the first is no column, so it asks again
    process.communicate(timeout=120)
    os.close(terminal)
    assert process.returncode == 0
    assert load_recipe("odd.yaml").data.columns == {"instruction": "fr", "output": "en"}


def test_a_few_steps_can_be_timed(init: Moslora):
    text = init(write("pairs.jsonl", PAIRS), "--measure").stdout
    (line,) = [line for line in text.splitlines() if line.startswith("measured ")]
    assert " s a step, about " in line
    assert not Path("runs").exists()


def test_a_recipe_is_never_overwritten(init: Moslora, refused: Callable[..., str], model_folder: Path):
    init(write("pairs.jsonl", PAIRS))
    before = Path("pairs.yaml").read_text()
    message = refused("init", "pairs.jsonl", "--model", model_folder)
    assert message == "pairs.yaml is there already and is not overwritten: give another name, --output NAME.yaml"
    assert Path("pairs.yaml").read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: no such file"),
        (["pairs.jsonl", "--output", "recipe.txt"], "--output recipe.txt is no recipe's name"),
        (["pair.jsnl"], "no data source 'pair.jsnl'; did you mean 'pairs.jsonl' ("),
        (
            ["pairs.jsonl", "data.on_bad=skip"],
            "data.on_bad=skip is a setting and no file: write --set data.on_bad",
        ),
        (["pairs.jsonl", "--set", "data=3"], "--set data=3: data is a group of settings"),
        (["pairs.jsonl", "--set", "training.epoch=3"], "the recipe: training.epoch is not a setting; did you mean"),
        (["pairs.jsonl", "--set", "model.dtype=half"], "the recipe: model.dtype is 'half' (text) (allowed: auto"),
        (["pairs.jsonl", "--model", "no/such/folder"], "model.path: there is no folder no/such/folder"),
        (["pairs.jsonl", "--task", "quiz.jsonl"], "quiz.jsonl: no such file"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(
    refused: Callable[..., str], model_folder: Path, arguments: list[str], message: str
):
    write("pairs.jsonl", PAIRS)
    Path("pair.yml").touch()  # nearer than the data
    model = [] if "--model" in arguments else ["--model", str(model_folder)]
    assert refused("init", *arguments, *model).startswith(message)
    assert not list(Path().glob("*.yaml"))
