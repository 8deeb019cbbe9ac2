"""`moslora compare`: methods compared on the same data with several seeds, each at a learning rate of its own."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli.options import JsonOption, OutputOption, print_json, print_table, remark, remarks, results
from moslora.errors import ConfigError

EXAMPLES = (
    "moslora compare --list",
    "moslora compare quick",
    "# what it would do, and about how long it takes here",
    "moslora compare table4-small --dry-run",
    "# on ARC, OpenBookQA and PIQA instead of the built-in questions",
    "moslora compare table4-small --data hub",
    "# your own plan",
    "moslora compare table4-small --show > mine.yaml",
    "moslora compare mine.yaml --set seeds=[1,2,3]",
    "# keep a finished one: records, tables and one file of answers and curves",
    "moslora compare table4-small --pack",
    "# seconds and memory of every arm, measured apart",
    "moslora compare table4-small --costs",
)

PlanArgument = Annotated[
    str | None, typer.Argument(metavar="PLAN", help="Name of a shipped plan, or a YAML file.", show_default=False)
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "-s", metavar="KEY=VALUE", help="Change a setting of the plan; may be repeated.", show_default=False
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER|hub",
        help="Folder of the task sets. The small plans then use ARC, OpenBookQA and PIQA.",
        show_default=False,
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the runs with estimated time and memory, then exit.")
]
ShardOption = Annotated[str | None, typer.Option("--shard", metavar="I/N", help="Run only the I-th of N parts.")]
CostsOption = Annotated[
    bool, typer.Option("--costs", help="Measure each arm's seconds per step and peak memory in a process of its own.")
]
PackOption = Annotated[
    bool,
    typer.Option("--pack", help="Move the answers and curves of a finished comparison's runs into one file."),
]
ListOption = Annotated[bool, typer.Option("--list", help="List the shipped plans.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Print the plan as YAML, for editing.")]


def compare(
    context: typer.Context,
    plan: PlanArgument = None,
    settings: SetOption = None,
    output: OutputOption = None,
    data: DataOption = None,
    dry_run: DryRunOption = False,
    shard: ShardOption = None,
    costs: CostsOption = False,
    is_pack: PackOption = False,
    is_list: ListOption = False,
    is_show: ShowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare methods over several seeds. Writes to comparisons/NAME; run again, it resumes."""
    from moslora.comparison.plan import list_plans, load_plan, plan_text
    from moslora.launch import is_first

    if is_list:
        _list(list_plans(), as_json=as_json)
        return
    if plan is None:
        raise ConfigError("compare needs a plan: give a name of `moslora compare --list`, or a YAML file")
    if is_show:
        is_changed = plan.endswith((".yaml", ".yml")) or settings or data
        typer.echo(load_plan(plan, settings or [], data=data).to_yaml() if is_changed else plan_text(plan), nl=False)
        return
    chosen = load_plan(plan, settings or [], data=data)
    folder = output or Path("comparisons") / chosen.name

    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    if dry_run:
        _dry_run(chosen, as_json=as_json)
        return
    if is_pack:
        _pack(chosen, folder)
        return
    record = _compared(context, chosen, folder, shard=shard, costs=costs)
    if is_first():
        _print(record, folder, as_json=as_json)
    if not any(arm.runs for arm in record.arms) and any(arm.failed or arm.cannot for arm in record.arms):
        raise typer.Exit(1)


def _compared(context: typer.Context, plan: Any, folder: Path, *, shard: str | None, costs: bool) -> Any:
    from moslora.comparison.compare import collect, run_comparison
    from moslora.comparison.sharding import Shard
    from moslora.launch import is_first

    def report(line: str) -> None:
        if is_first():
            remarks.print(line, style="dim")

    part = Shard.parse(shard) if shard else None
    try:
        if costs:
            from moslora.comparison.compare import check_plan
            from moslora.comparison.cost import measure_costs

            check_plan(plan, folder)
            measure_costs(plan, folder, report=report)
            return collect(plan, folder)
        return run_comparison(plan, folder, shard=part, report=report)
    except KeyboardInterrupt as interrupt:
        from moslora.cli import ARGUMENTS
        from moslora.cli.failures import INTERRUPTED

        reason = f"interrupted: {interrupt}" if interrupt.args else "interrupted"
        remarks.print(f"{reason}; to resume: {shlex.join(['moslora', *context.meta[ARGUMENTS]])}")
        raise typer.Exit(INTERRUPTED) from None


def _pack(plan: Any, folder: Path) -> None:
    from moslora.comparison.compare import RECORD_NAME, check_plan
    from moslora.packed import PACK, pack
    from moslora.records import ComparisonRecord

    check_plan(plan, folder)
    if not ComparisonRecord.load(folder / RECORD_NAME).is_complete:
        raise ConfigError(f"{folder} is not complete: start the same command without --pack to do what is missing")
    results.print(f"{pack(folder):,} files of runs packed into {folder / PACK}")


def _dry_run(plan: Any, *, as_json: bool) -> None:
    from moslora.comparison.estimate import estimate

    found = estimate(plan, report=remark)
    if as_json:
        print_json(found.to_dict())
        return
    print_table(results, found.table())
    results.print(found.summary())


def _print(record: Any, folder: Path, *, as_json: bool) -> None:
    from moslora.comparison.compare import RECORD_NAME
    from moslora.comparison.tables import footnotes, terminal

    if as_json:
        results.print(record.model_dump_json(indent=2))
        return
    for table in terminal(record):
        print_table(results, table)
    results.print(f"\n{record.verdict}\n")
    for note in footnotes(record):
        results.print(f"- {note}")
    results.print(f"\ntables  {folder}/table.md, table.csv, table.tex\nrecord  {folder / RECORD_NAME}")
    if not record.is_complete:
        results.print("not complete: start the same command again to do what is missing")


def _list(plans: dict[str, str], *, as_json: bool) -> None:
    from rich.table import Table

    if as_json:
        print_json([{"name": name, "summary": summary} for name, summary in plans.items()])
        return
    table = Table("name", "what it compares", box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.columns[0].no_wrap = True
    for name, summary in plans.items():
        table.add_row(name, summary)
    results.print(table, soft_wrap=False)
    remarks.print("Print one to edit: moslora compare NAME --show > mine.yaml", style="dim")
