import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer
from rich.text import Text
from typer.testing import CliRunner, Result

import moslora
from moslora import cli
from moslora.cli import COMMANDS, app
from moslora.cli.options import ResumeOption, examples
from moslora.errors import DataError, OutputError

HEAVY = {"torch", "transformers", "peft", "datasets", "numpy", "scipy"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moslora", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A command that does what the test wants: `stub(function)` runs it."""

    def invoke(function: Callable[..., None], *arguments: str) -> Result:
        module = ModuleType("moslora.cli.stub")
        vars(module).update(stub=function, EXAMPLES=("moslora stub --list=[a]", "# why", "moslora stub"))
        monkeypatch.setitem(sys.modules, "moslora.cli.stub", module)
        monkeypatch.setitem(COMMANDS, "stub", "stub")
        return CliRunner().invoke(app, list(arguments or ["stub"]))

    return invoke


def raising(error: BaseException) -> Callable[..., None]:
    def command() -> None:
        """Fail."""
        raise error

    return command


def resumable(recipe: str, overwrite: bool = False, resume: ResumeOption = False) -> None:
    """Be interrupted."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["recipes", "list", "-h"]])
def test_help_ends_with_examples_that_fit_eighty_columns(arguments: list[str]):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    text = Text.from_ansi(result.stdout).plain
    assert max(len(line) for line in text.splitlines()) <= 80
    _, _, shown = text.partition("Examples")
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    assert lines
    assert all(line.startswith(("moslora ", "# ")) for line in lines)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["--version"]])
def test_help_imports_no_heavy_library(arguments: list[str]):
    code = textwrap.dedent(f"""
        import sys
        from moslora.cli import main
        sys.argv = ["moslora", *{arguments}]
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code
        heavy = {HEAVY} & set(sys.modules)
        assert not heavy, heavy
    """)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)


def test_listing_recipes_imports_no_torch():
    code = (
        "import sys; from moslora.cli import app; sys.argv = ['moslora', 'recipes', 'list']; "
        "app(standalone_mode=False); assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)


def test_the_version_is_one_line():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout == f"moslora {moslora.__version__}\n"


def test_a_bare_call_shows_the_help_and_is_a_mistake():
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    assert "Usage: moslora" in Text.from_ansi(result.stdout).plain
    assert result.stderr == ""


def test_the_module_runs_like_the_program():
    result = run("recipes", "show", "dmo")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: unknown recipe 'dmo'; did you mean 'demo'?")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["recpes"], "error: unknown command 'recpes'; did you mean 'recipes'? (moslora --help lists all)"),
        (["recipes", "shw"], "error: no such command 'shw'. Did you mean 'show'? (see: moslora recipes --help)"),
        (["recipes", "list", "--jsn"], "error: no such option: --jsn (Possible options: --json) (see: moslora recipes"),
        (["recipes", "show"], "error: missing argument 'NAME' (see: moslora recipes show --help)"),
        (["--verbose", "recipes"], "error: no such option: --verbose"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(arguments: list[str], expected: str):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(expected)
    assert result.stderr.count("\n") == 1


def test_a_users_mistake_is_one_line_and_exit_code_2(stub: Callable[..., Result]):
    result = stub(raising(DataError("train.jsonl: line 3:\n  broken JSON [q_proj]")))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == "error: train.jsonl: line 3: broken JSON [q_proj]\n"


@pytest.mark.parametrize("error", [OutputError("disk full"), OSError(errno.ENOSPC, "No space left on device", "x.bin")])
def test_a_file_that_cannot_be_written_is_a_mistake(stub: Callable[..., Result], error: OSError):
    result = stub(raising(error))
    assert result.exit_code == 2
    assert result.stderr == f"error: {error}\n"


def test_an_unexpected_exception_says_so_and_is_exit_code_1(stub: Callable[..., Result]):
    result = stub(raising(KeyError("weight")))
    assert result.exit_code == 1
    assert result.stderr == (
        "error: unexpected KeyError: 'weight' "
        "(probably a mistake in moslora; run again with --debug for the traceback)\n"
    )


@pytest.mark.parametrize("arguments", [["--debug", "stub"], ["stub", "--debug"]])
def test_a_traceback_is_shown_only_for_debug(stub: Callable[..., Result], arguments: list[str]):
    result = stub(raising(DataError("empty set")), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert result.stderr.endswith("error: empty set\n")
    assert "Traceback" not in stub(raising(DataError("empty set"))).output


def test_an_interrupted_run_says_how_to_go_on(stub: Callable[..., Result]):
    result = stub(resumable, "stub", "my recipe.yaml", "--overwrite")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; to resume: moslora stub 'my recipe.yaml' --resume\n"


def test_an_interrupt_may_say_what_was_saved(stub: Callable[..., Result]):
    result = stub(raising(KeyboardInterrupt("stopped after step 40")))
    assert result.exit_code == 130
    assert result.stderr == "interrupted: stopped after step 40; to start over: moslora stub\n"


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "interrupted: asked to stop")]
)
def test_control_c_and_sigterm_end_the_process_with_130(number: int, said: str):
    code = textwrap.dedent("""
        import sys, time
        from types import ModuleType
        import moslora.cli as cli

        def stub(resume: bool = False) -> None:
            print("ready", flush=True)
            time.sleep(60)

        sys.modules["moslora.cli.stub"] = module = ModuleType("moslora.cli.stub")
        module.stub, module.EXAMPLES = stub, ()
        cli.COMMANDS["stub"] = "stub"
        sys.argv = ["moslora", "stub"]
        cli.main()
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, number)
    _, remarks = process.communicate(timeout=60)
    assert process.returncode == 130
    assert remarks == f"{said}; to resume: moslora stub --resume\n"


@pytest.mark.parametrize(("typed", "expected"), [("moslora rec", "recipes"), ("moslora recipes s", "show")])
def test_the_shell_completes_commands(typed: str, expected: str):
    environment = {"_MOSLORA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert CliRunner().invoke(app, [], env=environment, prog_name="moslora").stdout.split() == [expected]


def test_completing_after_an_unknown_command_goes_on_from_the_commands():
    environment = {"_MOSLORA_COMPLETE": "complete_bash", "COMP_WORDS": "moslora recpes se", "COMP_CWORD": "2"}
    assert CliRunner().invoke(app, [], env=environment, prog_name="moslora").output.strip() == "settings"


def test_a_closed_pipe_ends_without_a_word():
    shell = f"{sys.executable} -m moslora recipes show demo | true"
    result = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""


def test_a_command_may_set_its_own_exit_code(stub: Callable[..., Result]):
    assert stub(raising(typer.Exit(3))).exit_code == 3


def test_examples_keep_their_brackets_and_lines(stub: Callable[..., Result]):
    result = stub(raising(typer.Exit()), "stub", "--help")
    lines = [line.strip() for line in Text.from_ansi(result.stdout).plain.splitlines()]
    start = lines.index("Examples")
    assert lines[start + 1 : start + 4] == ["moslora stub --list=[a]", "# why", "moslora stub"]
    assert examples("a [b]").endswith("a \\[b]")


def test_every_command_has_its_file():
    folder = Path(str(cli.__file__)).parent
    for module in COMMANDS.values():
        assert (folder / f"{module}.py").is_file()
