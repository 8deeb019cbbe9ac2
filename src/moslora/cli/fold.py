"""`moslora fold`: the adapter as plain LoRA."""

from moslora.cli.options import AdapterArgument, BaseOption, DriftOption, JsonOption, OutputOption, print_json, results
from moslora.errors import python_line, python_text

EXAMPLES = (
    "moslora fold runs/demo",
    "moslora fold path/to/adapter --output lora",
)


def fold(
    adapter: AdapterArgument,
    output: OutputOption = None,
    allow_drift: DriftOption = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fold the mixer into plain LoRA of the same rank, verified. Default output: ADAPTER/folded."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.adapters import open_adapter
    from moslora.runs.exporting import fold_adapter

    opened = open_adapter(adapter, base=base)
    folder = output or opened.home / "folded"
    export = fold_adapter(opened, folder, allow_drift=allow_drift)
    if as_json:
        print_json(export.to_dict())
        return
    results.print(f"folded into plain LoRA: {folder}")
    for line in export.verdicts():
        results.print(line)
    results.print("load it with plain PEFT, without moslora:")
    code = (
        f"from peft import PeftModel; from transformers import {export.class_name};"
        f" model = PeftModel.from_pretrained({export.base_code()}, {python_text(folder)})"
    )
    results.print(f"  {python_line(code)}")
    if export.note:
        results.print(f"note: {export.note}")
