"""`moslora generate`: text, or pictures, from a base model with an adapter."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from moslora.cli.options import AdapterArgument, BaseOption, PromptOption, remarks
from moslora.errors import ConfigError

EXAMPLES = (
    'moslora generate runs/demo "What is a sparrow?"',
    'moslora generate runs/vision-demo "What colour is it?" --image shape.png',
    "# a conversation, one line a turn, through the model's chat template",
    "moslora generate runs/demo --chat",
    "# pictures, four a prompt, with and without the adapter from the same noise",
    'moslora generate runs/sdxl "a photo of ikat cat" --compare-base',
    "# a style beside the subject, over the subject's weight",
    'moslora generate runs/sdxl "ikat cat" --with style.safetensors=1 --sweep 0,1',
)
OF_TEXT, OF_PICTURES = "Text", "Pictures"


def generate(
    adapter: AdapterArgument,
    prompt: Annotated[str | None, typer.Argument(help="The instruction, or what to draw.")] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Hold a conversation; an empty line ends it.", rich_help_panel=OF_TEXT)
    ] = False,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="A picture that the prompt is about; may be repeated.", rich_help_panel=OF_TEXT),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Length of an answer in tokens.", rich_help_panel=OF_TEXT)
    ] = 128,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0: the most probable token each time.", rich_help_panel=OF_TEXT)
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(help="Of the sampling, where the temperature is above 0.", rich_help_panel=OF_TEXT)
    ] = 42,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="A file, one prompt a line.", rich_help_panel=OF_PICTURES)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where pictures go.", rich_help_panel=OF_PICTURES),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Pictures a prompt.", rich_help_panel=OF_PICTURES)] = 4,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Default: the recipe's.", rich_help_panel=OF_PICTURES)
    ] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0.0, help="Default: the recipe's.", rich_help_panel=OF_PICTURES)
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, help="In pixels. Default: as trained.", rich_help_panel=OF_PICTURES)
    ] = None,
    negative: Annotated[str, typer.Option(help="What not to draw.", rich_help_panel=OF_PICTURES)] = "",
    compare_base: Annotated[
        bool, typer.Option("--compare-base", help="Draw without the adapter too.", rich_help_panel=OF_PICTURES)
    ] = False,
    weight: Annotated[float, typer.Option(help="Of the adapter.", rich_help_panel=OF_PICTURES)] = 1.0,
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="FILE=WEIGHT", help="Another LoRA file.", rich_help_panel=OF_PICTURES),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="W,W,...", help="One sheet over these weights.", rich_help_panel=OF_PICTURES),
    ] = None,
    base: BaseOption = None,
    prompt_style: PromptOption = None,
) -> None:
    """Answer a prompt, hold a chat, or draw pictures, with the adapter; text is printed as it is made."""
    if (prompt is not None) + chat + (prompts is not None) != 1:
        raise ConfigError("give one of: a prompt, --prompts FILE (pictures), or --chat (text)")
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.runs.adapters import open_adapter
    from moslora.runs.kinds import kind_of

    opened = open_adapter(adapter, base=base, prompt=prompt_style)
    if kind_of(opened.model.kind).draws:
        from moslora.cli.drawing import draw

        if chat or image:
            raise ConfigError(f"{opened.adapter} is an adapter of a model that draws: leave out --chat and --image")
        how = {"steps": steps, "guidance": guidance, "resolution": size, "negative_prompt": negative or None}
        wanted: dict[str, Any] = {"prompt": prompt, "prompts": prompts, "seeds": seeds, "how": how}
        draw(opened, **wanted, output=output, with_base=compare_base, weight=weight, beside=beside or [], sweep=sweep)
        return
    if prompts is not None:
        raise ConfigError(f"--prompts is for models that draw, and {opened.adapter} answers one prompt, or --chat")
    _answer(opened, prompt, image, {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed})


def _answer(opened: Any, prompt: str | None, image: list[Path] | None, sampling: dict[str, Any]) -> None:
    """Answer a prompt, or what is typed line by line."""
    from moslora.data.prompts import CHAT
    from moslora.runs.adapters import load_adapted, require_language_model
    from moslora.runs.kinds import kind_of

    require_language_model(opened, "generate")
    model, processor = load_adapted(opened)
    style = CHAT if prompt is None else opened.asked_with
    if image and not kind_of(opened.model.kind).sees_pictures:
        raise ConfigError(f"{opened.adapter} is an adapter of a model without pictures: leave out --image")
    sampling |= {"images": image} if image else {}
    speaker = kind_of(opened.model.kind).speaker(model, processor, prompt=style, **sampling)
    if prompt is not None:
        speaker.answer(prompt)
        return
    remarks.print("chat: one line a turn; an empty line, or Ctrl-D, ends it", style="dim")
    while True:
        if sys.stdin.isatty():
            remarks.print("> ", end="")
        line = sys.stdin.readline().strip()
        if not line:
            return
        speaker.answer(line)
