"""`moslora import`: adapters of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from moslora.cli.options import JsonOption, print_json, results

EXAMPLES = (
    "# MoSLoRA's reference code (lora_AB), LinChain's (lora_mixer.N), or plain LoRA",
    "moslora import path/to/their/adapter --output adapter",
)


def import_checkpoint(
    source: Annotated[Path, typer.Argument(help="Folder with adapter_config.json and weights.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Convert an adapter of the reference code, of LinChain's, or plain LoRA (identity mixer) into ours."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.adapter.importing import import_adapter

    config = import_adapter(source, output)
    if as_json:
        fields = ("r", "lora_alpha", "mixer", "mixer_depth", "lora_bias")
        print_json({"folder": str(output), **{name: getattr(config, name) for name in fields}})
        return
    kind = "identity mixers added to plain LoRA" if config.mixer == "identity" else "mixers kept"
    chain = f", chains of {config.mixer_depth}" if config.mixer_depth > 1 else ""
    bias = ", biases composed into lora_bias" if config.lora_bias else ""
    results.print(f"imported: {output} (rank {config.r}, {kind}{chain}{bias})")
