"""What the README and the pages under docs/ print: Python runs, diffs apply and run, commands parse, links lead on."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from moslora.cli import app
from moslora.runs.recipe import recipe_class

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [README, *PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

# What the libraries say of an accelerator that is not there, of each other's older names, and of what a page shows.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "'pin_memory' argument is set as true",
        ".gradient_checkpointing. is deprecated",
        "Already found a .peft_config. attribute",
        ".lora_bias=True. was passed",
        ".*torch_dtype.*",
    )
]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def named(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("page", paths, ids=lambda path: path.stem)


@pytest.fixture
def run(tiny_llama, tiny_tokenizer, tmp_path, monkeypatch):
    """Run printed Python in a new folder, on a tiny random model in the place of the one that is named."""
    LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_dict() | {"intermediate_size": 128})).save_pretrained(
        tmp_path / "model"
    )
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # PEFT asks the hub for a tokenizer beside an adapter

    def run_code(code: str, names: dict[str, Any]) -> dict[str, Any]:
        exec(compile(code.replace(MODEL, str(tmp_path / "model")), "printed", "exec"), names)
        return names

    return run_code


def test_the_readme_example_has_ten_lines_and_runs(run, tmp_path):
    [code] = blocks(README, "python")
    assert sum(bool(line.strip()) for line in code.splitlines()) == 10
    run(code, {})
    for folder in ("adapter", "folded"):
        assert (tmp_path / "work" / folder / "adapter_model.safetensors").is_file()


@named([page for page in PAGES if blocks(page, "python") and not blocks(page, "diff") and page.stem != "own-data"])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, run):  # that on own data: test_own_data.py, with its runs
    if "quantised" in page.stem:
        pytest.importorskip("bitsandbytes")
    names: dict[str, Any] = {}
    for code in blocks(page, "python"):
        run(code, names)


def test_scripts_run_with_the_changed_lines(run, tmp_path):
    pytest.importorskip("trl")
    page = ROOT / "docs/using-with-trainer-and-trl.md"
    trainer, sft = blocks(page, "diff")
    [folding] = blocks(page, "python")
    for number, diff in enumerate((trainer, sft)):
        lines = diff.splitlines()
        assert sum(line.startswith("+") for line in lines) <= 3
        run("\n".join(line[1:] for line in lines if not line.startswith("-")), {})
        if number:
            run(folding, {})
        for folder in ("adapter", "folded"):
            assert (tmp_path / "work" / folder / "adapter_model.safetensors").is_file()
            (tmp_path / "work" / folder).rename(tmp_path / f"{folder}{number}")


@named(TEXTS)
def test_printed_commands_exist_with_their_options(page):
    command: Any = typer.main.get_command(app)
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(" [<>] ", line)[0].split(" && "):
                words = shlex.split(part, comments=True)
                if words[:1] != ["moslora"]:
                    continue
                found, context = command, None
                while hasattr(found, "get_command"):
                    name, words = words[1], words[1:]
                    found = found.get_command(typer.Context(found), name)
                    assert found is not None, line
                context = found.make_context(found.name, words[1:])
                assert context is not None, line


@named([page for page in TEXTS if blocks(page, "yaml")])
def test_printed_settings_are_those_of_a_recipe(page):
    for block in blocks(page, "yaml"):
        recipe = yaml.safe_load(block)
        fields = recipe_class(recipe.get("kind")).model_fields
        for group, settings in recipe.items():
            assert group in fields, f"{page.name}: {group}"
            known = getattr(fields[group].annotation, "model_fields", {})
            if group != "adapter" and isinstance(settings, dict):
                assert set(settings) <= set(known), f"{page.name}: {group}"


@named(TEXTS)
def test_links_lead_to_files_of_the_project(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"docs/{page.name}" not in text] == []
