"""What `--help` shows, on narrow screens too."""

import pytest
from typer.testing import CliRunner

from moslora.cli import COMMANDS, app

GROUPS = {"judge": ("plan", "serve", "results"), "recipes": ("list", "show")}
PAGES = [[], *([name] for name in COMMANDS), *([group, name] for group, names in GROUPS.items() for name in names)]


@pytest.mark.parametrize("command", PAGES, ids=" ".join)
@pytest.mark.parametrize("columns", [60, 80])
def test_help_has_switches_without_types_and_is_as_wide_as_the_screen(command: list[str], columns: int):
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0
    for written in ("BOOLEAN", "<bool>", "<str>", "<path>", "<int", "list[", "--no-json", "…: ", " │ │"):
        assert written not in result.stdout
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    boxed = [line for line in lines if line.startswith("│")]
    assert all(line.endswith("│") and len(line) == columns for line in boxed)
