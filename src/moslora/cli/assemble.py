"""`moslora assemble`: a LLaVA model from a language model, a vision tower and a projector."""

from pathlib import Path
from typing import Annotated

import typer

from moslora.cli.options import JsonOption, print_json, results

EXAMPLES = (
    "# CLIP and a small language model, with a new projector",
    "moslora assemble smollm2 openai/clip-vit-base-patch16 llava",
    "# with the projector that XTuner trained for these two",
    "moslora assemble path/to/llama3 path/to/clip llava --projector iter_2181.pth",
)


def assemble(
    language: Annotated[
        str, typer.Argument(metavar="LANGUAGE", help="Language model: folder, hub id, smollm2.", show_default=False)
    ],
    vision: Annotated[
        str, typer.Argument(metavar="VISION", help="CLIP, SigLIP or DINOv2: folder or hub id.", show_default=False)
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="New folder to write.", show_default=False)],
    projector: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of XTuner, LLaVA or transformers. Default: a new one.", show_default=False),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Another tokenizer than the language model's.")
    ] = None,
    feature_layer: Annotated[int, typer.Option(help="Which hidden state of the vision tower is used.")] = -2,
    strategy: Annotated[
        str | None, typer.Option(help="default drops the class token, full keeps all. Default: by the tower.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels; for DINOv2. Default: the tower's.")] = None,
    pad: Annotated[str, typer.Option(help="Pictures that are not square: square, crop or own.")] = "square",
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    seed: Annotated[int, typer.Option(help="Of a new projector.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Build a LLaVA model in transformers' format, verified by loading it."""
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.assembling import AssemblyPlan
    from moslora.runs.assembling import assemble as build

    plan = AssemblyPlan(
        feature_layer=feature_layer, strategy=strategy, image_size=image_size, pad=pad, dtype=dtype, seed=seed
    )
    made = build(language, vision, folder=output, projector=projector, tokenizer=tokenizer, plan=plan)
    if as_json:
        print_json(made.to_dict())
        return
    results.print(f"assembled: {output} ({made.dtype}, verified: tensors, text and a picture)")
    results.print(f"  language   {made.language}: {made.language_parameters:,} parameters")
    results.print(f"  vision     {made.vision}: {made.vision_parameters:,} parameters, layer {made.feature_layer}")
    results.print(f"  projector  {made.projector}: {made.projector_parameters:,} parameters")
    row = "a new row" if made.new_rows else "a row that was there"
    results.print(f"  pictures   {made.image_token} is token {made.image_token_id} ({row} of the embedding)")
    size = f"{made.image_size} x {made.image_size} pixels in patches of {made.patch_size}"
    results.print(
        f"  a picture costs {made.tokens_per_picture} tokens: {size}, features {made.strategy}, padding {made.padding}"
    )
