"""`moslora fold`: the adapter as plain LoRA."""

from typing import Annotated

import typer

from moslora.cli.options import (
    AdapterArgument,
    BaseOption,
    DriftOption,
    JsonOption,
    OutputOption,
    print_export,
    remark,
)

EXAMPLES = (
    "moslora fold runs/demo",
    "moslora fold path/to/adapter --output lora",
    "# a text-to-image adapter for ComfyUI and others",
    "moslora fold runs/subject-demo --format kohya --output lora-kohya",
)


def fold(
    adapter: AdapterArgument,
    output: OutputOption = None,
    format: Annotated[
        str | None,
        typer.Option(help="peft; of a text-to-image adapter diffusers (the default), kohya, for ComfyUI, or peft."),
    ] = None,
    allow_drift: DriftOption = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold the mixer into plain LoRA of the same rank, verified. Default output: ADAPTER/folded."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.exporting import fold_adapter
    from moslora.runs.kinds import kind_of
    from moslora.runs.unfinished import open_reached

    opened = open_reached(adapter, base=base, report=remark)
    folder = output or opened.home / "folded"
    export = fold_adapter(opened, folder, format=format, allow_drift=allow_drift)
    kind = kind_of(opened.model.kind)
    library = "PEFT" if (format or kind.fold_formats[0]) == "peft" else kind.library
    print_export(
        export,
        f"folded into plain LoRA: {folder}",
        plain=f"plain {library}, without moslora",
        code=kind.folded_code(export.base_code(), folder, class_name=export.class_name),
        as_json=as_json,
    )
