"""What `moslora generate` does with a model that answers in text."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from moslora.cli.options import remark, remarks, results
from moslora.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from moslora.data.asked import Asked
    from moslora.runs.adapters import Opened
    from moslora.runs.kinds.speaking import Spoken

OF_TEXT = "Text"
STDIN = "-"

PromptArgument = Annotated[
    str | None,
    typer.Argument(
        help="The instruction, or what to draw. `-`, or none and a pipe: standard input, whole, as one prompt."
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="One prompt per line, or samples (.jsonl, .csv, ...); `-`: standard input, one per line.",
    ),
]
InputOption = Annotated[
    str | None,
    typer.Option("--input", metavar="TEXT", help="What the instruction is about; `-`: stdin.", rich_help_panel=OF_TEXT),
]
SystemOption = Annotated[str | None, typer.Option(help="The system message.", rich_help_panel=OF_TEXT)]
ChatOption = Annotated[
    bool, typer.Option("--chat", help="Hold a conversation; an empty line ends it.", rich_help_panel=OF_TEXT)
]
ImageOption = Annotated[
    list[Path] | None,
    typer.Option("--image", help="A picture that the prompt is about; may be repeated.", rich_help_panel=OF_TEXT),
]
MaxNewTokensOption = Annotated[int, typer.Option(min=1, help="Length of an answer in tokens.", rich_help_panel=OF_TEXT)]
TemperatureOption = Annotated[
    float, typer.Option(min=0.0, help="0: the most probable token each time.", rich_help_panel=OF_TEXT)
]
SeedOption = Annotated[
    int, typer.Option(help="Of the sampling, where the temperature is above 0.", rich_help_panel=OF_TEXT)
]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Prompts per batch.", rich_help_panel=OF_TEXT)]


@dataclass(frozen=True)
class Asking:
    """What is asked, and what becomes of the answers, as the command was given it."""

    prompt: str | None
    prompts: Path | None
    given: str | None
    system: str | None
    chat: bool
    images: list[Path]
    output: Path | None
    with_base: bool
    as_json: bool

    def check(self) -> None:
        """Refuse options that exclude each other. Raises ConfigError."""
        if (self.prompt is not None) + self.chat + (self.prompts is not None) != 1:
            raise ConfigError("give one of: a prompt, --prompts FILE, or --chat")
        unfit = {"--input": self.given is not None, "--json": self.as_json, "--output": self.output is not None}
        unfit |= {"--compare-base": self.with_base, "--image": bool(self.images)}
        if self.chat and any(unfit.values()):
            names = " and ".join(name for name, is_given in unfit.items() if is_given)
            raise ConfigError(f"a chat is held on the screen alone: leave out {names}, or give a prompt without --chat")


def with_standard_input(asking: Asking) -> Asking:
    """What standard input says in place of `-`, or of a prompt where none is given and something is piped in.

    Raises ConfigError where two things are to be read from it, DataError for what is not UTF-8.
    """
    read = {"the prompt": asking.prompt, "--prompts": str(asking.prompts), "--input": asking.given}
    if len(names := [name for name, value in read.items() if value == STDIN]) > 1:
        raise ConfigError(f"standard input is {' or '.join(names)}, not both: write one of them out")
    if asking.given == STDIN:
        return replace(asking, given=standard_input())
    is_open = asking.prompt is None and asking.prompts is None and not asking.chat
    if asking.prompt == STDIN or (is_open and not sys.stdin.isatty()):
        return replace(asking, prompt=standard_input() or asking.prompt)
    return asking


def answer(opened: "Opened", asking: Asking, sampling: dict[str, Any], *, batch_size: int) -> None:
    """Answer what is asked: one prompt as it is written, several in batches, or the turns of a chat."""
    from moslora.data.prompts import CHAT
    from moslora.runs.adapters import load_adapted
    from moslora.runs.answering import check_output
    from moslora.runs.kinds import kind_of

    _check_fits(opened, asking, sampling)
    asked = [] if asking.chat else _asked(opened, asking)
    style = CHAT if all(one.messages for one in asked) else opened.asked_with
    if asking.output:
        check_output(asking.output)
    model, processor = load_adapted(opened)
    options = sampling | ({"images": asking.images} if asking.images else {})
    speaker = kind_of(opened.model.kind).speaker(model, processor, prompt=style, **options)
    if asking.chat:
        from moslora.cli.chatting import hold_chat

        if opened.recipe and opened.asked_with != CHAT:
            remark(f"trained with the prompt '{opened.asked_with}'; a chat asks through the chat template instead")
        hold_chat(speaker, system=asking.system)
        return
    if asking.prompt is not None and not (asking.as_json or asking.output or asking.with_base):
        _say_if_cut([speaker.say(asked[0])], sampling["max_new_tokens"])
        return
    how: dict[str, Any] = {"batch_size": batch_size, "progress": len(asked) > 1}
    spoken, base = speaker.answers(asked, **how), None
    if asking.with_base:
        with model.disable_adapter():
            base = speaker.answers(asked, **how)
    _hand_over(asking, asked, spoken, base)
    _say_if_cut([*spoken, *(base or [])], sampling["max_new_tokens"])


def _check_fits(opened: "Opened", asking: Asking, sampling: dict[str, Any]) -> None:
    from moslora.runs.adapters import FULL, PROJECTOR_ONLY, require_language_model
    from moslora.runs.kinds import kind_of

    require_language_model(opened, "generate")
    sees_pictures = kind_of(opened.model.kind).sees_pictures
    if asking.images and not sees_pictures:
        raise ConfigError(f"{opened.adapter} sees no pictures: leave out --image")
    if asking.chat and sees_pictures:
        raise ConfigError(f"{opened.adapter} answers about pictures, and holds no chat: give a prompt, not --chat")
    if asking.with_base and opened.peft_type in (FULL, PROJECTOR_ONLY):
        raise ConfigError(f"{opened.adapter} holds no adapter to take away: leave out --compare-base")
    if asking.with_base and sampling["temperature"]:
        raise ConfigError("--compare-base compares the most probable answers: leave out --temperature")


def _asked(opened: "Opened", asking: Asking) -> "list[Asked]":
    """The prompts; a system message that instructions were trained with stands before those that bring none."""
    from moslora.data.asked import as_asked, asked_lines, read_asked

    system = asking.system
    if asking.prompts == Path(STDIN):
        asked = asked_lines(standard_input(), place="standard input", given=asking.given, system=system)
    elif asking.prompts is not None:
        data = opened.recipe.data if opened.recipe else None
        asked = read_asked(asking.prompts, columns=getattr(data, "columns", None), given=asking.given, system=system)
    else:
        asked = [as_asked({"instruction": asking.prompt}, place="the prompt", given=asking.given, system=system)]
    usual = opened.system
    return [
        one if one.messages or one.request["system"] else replace(one, request={**one.request, "system": usual})
        for one in asked
    ]


def _hand_over(
    asking: Asking, asked: "Sequence[Asked]", spoken: "Sequence[Spoken]", base: "Sequence[Spoken] | None"
) -> None:
    """Write the answers where they were wanted, or print them."""
    from moslora.runs.answering import answer_objects, as_lines, write_answers

    if asking.output:
        write_answers(asking.output, asked, spoken, base)
    if asking.as_json:
        results.print(as_lines(answer_objects(asked, spoken, base)), end="")
    elif asking.output:
        results.print(f"{len(asked)} {'answer' if len(asked) == 1 else 'answers'}: {asking.output}")
    else:
        _print(asked, spoken, base)


def _print(asked: "Sequence[Asked]", spoken: "Sequence[Spoken]", base: "Sequence[Spoken] | None") -> None:
    for index, (one, said) in enumerate(zip(asked, spoken, strict=True)):
        if len(asked) > 1:
            results.print(f"> {one.text}", style="dim")
        if base is None:
            results.print(said.text)
        else:
            table = Table("base", "adapter", expand=True)
            table.columns[0].ratio = table.columns[1].ratio = 1
            table.add_row(_plain(base[index].text), _plain(said.text))
            Console(file=results.file, width=results.width, highlight=False, markup=False).print(table)
        if index + 1 < len(asked):
            results.print()


def _plain(text: str) -> str:
    """A text without what a terminal would act on."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\ufffd" for sign in text)


def _say_if_cut(spoken: "Sequence[Spoken]", most: int) -> None:
    cut = sum(one.is_cut for one in spoken)
    if cut:
        of = f"{cut} of {len(spoken)} answers were" if len(spoken) > 1 else "the answer was"
        remarks.print(f"{of} cut at {most} tokens (--max-new-tokens)", style="dim")


def standard_input() -> str:
    """What is piped in, without white space around it. Raises DataError for what is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not text in UTF-8 ({error.reason}); convert it, for instance with iconv"
        ) from error
