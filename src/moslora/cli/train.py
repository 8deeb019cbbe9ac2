"""`moslora train`: one recipe, from data to a trained, evaluated adapter."""

from pathlib import Path

from moslora.cli.options import (
    JsonOption,
    OutputOption,
    OverwriteOption,
    RecipeArgument,
    ResumeOption,
    SetOption,
    remarks,
    results,
)
from moslora.errors import NothingSaved

EXAMPLES = (
    "moslora train demo",
    "# your own recipe, two values changed",
    "moslora train mine.yaml --set training.epochs=1 --set adapter.r=32",
    "# resume after an interruption",
    "moslora train demo --resume",
)


def train(
    recipe: RecipeArgument,
    settings: SetOption = None,
    output: OutputOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train an adapter from a recipe, and evaluate it. Writes to runs/NAME unless --output says where."""
    from moslora.launch import is_first
    from moslora.runs.folder import RunFolder
    from moslora.runs.model_names import check_obtainable
    from moslora.runs.recipe import load_recipe

    chosen = load_recipe(recipe, settings or [])
    folder = output or Path("runs") / chosen.name
    if is_first():
        RunFolder.check(folder, resume=resume, overwrite=overwrite)  # before the slow imports
    check_obtainable(chosen.model.path)
    before = _written(folder)
    try:
        from moslora.cli.quiet import quiet_libraries

        quiet_libraries()
        from moslora.cli.summary import print_run
        from moslora.runs.run import run_recipe

        said: list[str] = []

        def report(line: str) -> None:
            said.append(line)
            remarks.print(line, style="dim")

        record = run_recipe(chosen, folder, resume=resume, overwrite=overwrite, report=report)
    except KeyboardInterrupt as interrupt:
        if not resume and _written(folder) == before:
            raise NothingSaved from interrupt
        raise
    if not is_first():
        return
    if as_json:
        results.print(record.model_dump_json(indent=2))
        return
    is_one_screen = results.is_terminal and remarks.is_terminal
    print_run(results, record, folder, said=said if is_one_screen else ())


def _written(folder: Path) -> int | None:
    """When the run's record was last written; None without one."""
    from moslora.runs.folder import RunFolder

    record = RunFolder(folder).record_path
    return record.stat().st_mtime_ns if record.exists() else None
