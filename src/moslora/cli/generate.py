"""`moslora generate`: text, or pictures, from a base model, mostly with an adapter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli import answering, drawing
from moslora.cli.options import BaseOption, JsonOption, ModelArgument, PromptOption, given_options, remark
from moslora.errors import ConfigError

EXAMPLES = (
    'moslora generate runs/demo "What is a sparrow?"',
    'moslora generate runs/mine "Summarise." --input - < letter.txt',
    "# a conversation through the model's chat template",
    "moslora generate runs/demo --chat",
    "# a file of prompts, with and without the adapter",
    "moslora generate runs/demo --prompts p.txt --compare-base -o out.jsonl",
    "# text files for moslora judge serve",
    "moslora generate runs/demo --prompts p.txt --output answers",
    'moslora generate runs/vision-demo "What colour is it?" --image shape.png',
    "# pictures, four per prompt, with and without the adapter from the same noise",
    'moslora generate runs/sdxl "a photo of ikat cat" --compare-base',
    "# a style beside the subject, over the subject's weight",
    'moslora generate runs/sdxl "ikat cat" --with style.safetensors=1 --sweep 0,1',
)


# What only a model that answers in text has, and only one that draws.
TEXT_ALONE = ("chat", "image", "given", "system", "as_json", "max_new_tokens", "temperature", "seed", "batch_size")
PICTURES_ALONE = ("seeds", "steps", "guidance", "size", "negative", "weight", "beside", "sweep")
UNSWEPT = ("weight", "compare_base")


def generate(
    context: typer.Context,
    adapter: ModelArgument,
    prompt: answering.PromptArgument = None,
    prompts: answering.PromptsOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="PATH", help="A new folder; for text also a new .jsonl file."),
    ] = None,
    compare_base: Annotated[bool, typer.Option("--compare-base", help="Ask the base without the adapter too.")] = False,
    given: answering.InputOption = None,
    system: answering.SystemOption = None,
    chat: answering.ChatOption = False,
    image: answering.ImageOption = None,
    max_new_tokens: answering.MaxNewTokensOption = 128,
    temperature: answering.TemperatureOption = 0.0,
    seed: answering.SeedOption = 42,
    batch_size: answering.BatchSizeOption = 8,
    as_json: JsonOption = False,
    seeds: drawing.SeedsOption = 4,
    steps: drawing.StepsOption = None,
    guidance: drawing.GuidanceOption = None,
    size: drawing.SizeOption = None,
    negative: drawing.NegativeOption = "",
    weight: drawing.WeightOption = 1.0,
    beside: drawing.BesideOption = None,
    sweep: drawing.SweepOption = None,
    base: BaseOption = None,
    prompt_style: PromptOption = None,
) -> None:
    """Answer prompts, hold a chat, or draw pictures, with the adapter; one answer is printed as it is written."""
    asking = answering.Asking(prompt, prompts, given, system, chat, image or [], output, compare_base, as_json)
    asking = answering.with_standard_input(asking)
    asking.check()
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.kinds import kind_of
    from moslora.runs.unfinished import open_reached

    opened = open_reached(adapter, base=base, prompt=prompt_style, or_base=True, report=remark)
    draws = kind_of(opened.model.kind).draws
    if unfit := given_options(context, TEXT_ALONE if draws else PICTURES_ALONE):
        raise ConfigError(
            f"{opened.adapter} {'draws' if draws else 'answers in text'}: leave out {' and '.join(unfit)}"
        )
    if not draws:
        sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        answering.answer(opened, asking, sampling, batch_size=batch_size)
        return
    if sweep is not None and (unfit := given_options(context, UNSWEPT)):
        raise ConfigError(f"--sweep draws with each of its weights, 0 is the base: leave out {' and '.join(unfit)}")
    how = {"steps": steps, "guidance": guidance, "resolution": size, "negative_prompt": negative or None}
    wanted: dict[str, Any] = {"prompt": asking.prompt, "prompts": prompts, "seeds": seeds, "how": how}
    beside = beside or []
    drawing.draw(opened, **wanted, output=output, with_base=compare_base, weight=weight, beside=beside, sweep=sweep)
