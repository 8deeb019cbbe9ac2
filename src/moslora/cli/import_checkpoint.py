"""`moslora import`: adapters of other programs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli.options import JsonOption, print_json, results
from moslora.errors import ConfigError, command

EXAMPLES = (
    "# MoSLoRA's reference code (lora_AB), LinChain's (lora_mixer.N), or plain LoRA",
    "moslora import path/to/their/adapter --output adapter",
    "# XTuner's llm_adapter, visual_encoder_adapter and projector",
    "moslora import path/to/xtuner --base llava --output adapter",
)


def import_checkpoint(
    source: Annotated[
        Path, typer.Argument(help="Folder with adapter_config.json and weights, or XTuner's three.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.", show_default=False)
    ],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The LLaVA model that XTuner's folders are for.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Convert an adapter of the reference code, LinChain's or XTuner's, or plain LoRA (identity mixer) into ours."""
    if base is not None:
        from moslora.runs.model_names import check_obtainable

        check_obtainable(base)  # before the slow imports
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.adapter.importing import import_adapter
    from moslora.adapter.importing_parts import is_in_parts

    if is_in_parts(source):
        if base is None:
            raise ConfigError(
                f"{source} holds adapters of a LLaVA model's parts: say of which model, {command('import', source)}"
                f" --base MODEL --output {output} (moslora assemble builds one)"
            )
        _import_parts(source, output, base=base, as_json=as_json)
        return
    if base is not None:
        raise ConfigError(f"--base is for folders with llm_adapter or visual_encoder_adapter, and {source} has neither")
    config = import_adapter(source, output)
    if as_json:
        fields = ("r", "lora_alpha", "mixer", "mixer_depth", "lora_bias")
        print_json({"folder": str(output), **{name: getattr(config, name) for name in fields}})
        return
    kind = "identity mixers added to plain LoRA" if config.mixer == "identity" else "mixers kept"
    chain = f", chains of {config.mixer_depth}" if config.mixer_depth > 1 else ""
    bias = ", biases composed into lora_bias" if config.lora_bias else ""
    results.print(f"imported: {output} (rank {config.r}, {kind}{chain}{bias})")


def _import_parts(source: Path, output: Path, *, base: str, as_json: bool) -> None:
    from moslora.runs.importing_llava import import_llava

    made = import_llava(source, output, base=base)
    if as_json:
        print_json({"folder": str(output), **made.to_dict()})
        return
    results.print(f"imported: {output}")
    for part, about in made.parts.items():
        results.print(f"  {part}: {_about(about)}")
    if made.has_projector:
        results.print("  projector: whole")
    results.print(
        f"verified in {base}: {made.tensors.compared} tensors as in the files; a picture's logits change by"
        f" {made.logit_change:.1%} of the largest"
    )


def _about(part: dict[str, Any]) -> str:
    return f"{part['layers']} layers, rank {part['r']}, alpha {part['lora_alpha']}, mixer {part['mixer']}"
