"""`moslora merge`: base model and adapter as one full model."""

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
from moslora.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")
EXAMPLES = (
    "moslora merge runs/demo",
    "# a 4-bit base is dequantised, so say into what",
    "moslora merge runs/qmoslora --dtype bfloat16",
)


def merge(
    adapter: AdapterArgument,
    output: OutputOption = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of the merged weights: float32, bfloat16, float16. Default: the base model's.")
    ] = None,
    allow_drift: DriftOption = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge the adapter into a full model, verified. Default output: ADAPTER/merged."""
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype} is not known (allowed: {', '.join(DTYPES)})")
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.exporting import merge_adapter
    from moslora.runs.kinds import kind_of
    from moslora.runs.unfinished import open_reached

    opened = open_reached(adapter, base=base, report=remark)
    folder = output or opened.home / "merged"
    export = merge_adapter(opened, folder, dtype=dtype, allow_drift=allow_drift)
    library = kind_of(opened.model.kind).library
    print_export(
        export,
        f"merged into a full model: {folder}",
        plain=f"{library} alone",
        code=f"from {library} import {export.class_name}; model = {export.merged_code()}",
        as_json=as_json,
    )
