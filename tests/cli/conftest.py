"""The program run in this process, and a finished run to try commands on."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moslora.cli import app


@pytest.fixture(autouse=True)
def _libraries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands silence other libraries; give their voices back."""
    from transformers.utils import logging

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture
def moslora() -> Callable[..., Result]:
    """`moslora("fold", folder)` runs the command; an exit code other than the expected one is shown."""

    def run(*arguments: str | Path, exit_code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
        assert result.exit_code == exit_code, (result.stdout, result.stderr, result.exception)
        return result

    return run


@pytest.fixture
def refused(moslora: Callable[..., Result]) -> Callable[..., str]:
    """The one line on stderr of a command that is refused with exit code 2."""

    def run(*arguments: str | Path) -> str:
        result = moslora(*arguments, exit_code=2)
        assert result.stdout == ""
        *_, last = result.stderr.splitlines()
        assert result.stderr == f"{last}\n"
        assert last.startswith("error: ")
        return last.removeprefix("error: ")

    return run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, recipe_in: Callable[..., Path]) -> Path:
    """A run that nobody changes."""
    from moslora.runs.recipe import load_recipe
    from moslora.runs.run import run_recipe

    folder = tmp_path_factory.mktemp("finished")
    run_recipe(load_recipe(recipe_in(folder)), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def finished(tmp_path: Path, finished_run: Path) -> Path:
    """A finished run of one's own."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
