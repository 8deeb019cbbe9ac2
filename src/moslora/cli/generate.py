"""`moslora generate`: text from a base model with an adapter."""

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
)


def generate(
    adapter: AdapterArgument,
    prompt: Annotated[str | None, typer.Argument(help="The instruction. Left out with --chat.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Hold a conversation; an empty line ends it.")] = False,
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="A picture that the prompt is about; may be repeated.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Length of an answer in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0: the most probable token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampling, where the temperature is above 0.")] = 42,
    base: BaseOption = None,
    prompt_style: PromptOption = None,
) -> None:
    """Answer a prompt, or hold a chat, with the adapter; the text is printed as it is made."""
    if chat == (prompt is not None):
        raise ConfigError("give either a prompt or --chat")
    from moslora.cli.quiet import quiet_libraries

    quiet_libraries()
    from moslora.data.prompts import CHAT
    from moslora.runs.adapters import load_adapted, open_adapter, require_language_model
    from moslora.runs.kinds import kind_of

    opened = open_adapter(adapter, base=base, prompt=prompt_style)
    require_language_model(opened, "generate")
    model, processor = load_adapted(opened)
    style = CHAT if chat else opened.asked_with
    if image and not kind_of(opened.model.kind).sees_pictures:
        raise ConfigError(f"{opened.adapter} is an adapter of a model without pictures: leave out --image")
    sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
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
