"""How a command ends when it does not succeed: one line on stderr and an exit code, a traceback only with `--debug`."""

import errno
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from moslora.errors import MosloraError, NothingSaved

MISTAKE, UNEXPECTED, INTERRUPTED = 2, 1, 130  # exit codes


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does, so that files and records are left in order; in forked processes it just ends."""
    own = os.getpid()

    def interrupt(number: int, _frame: object) -> None:
        if os.getpid() == own:
            raise KeyboardInterrupt("asked to stop")
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def reported(context: Any, *, arguments: list[str]) -> Iterator[None]:
    """Print what is raised inside as one line and leave with the exit code that belongs to it.

    `context` is the program's typer context, `arguments` what the user typed after the program's name.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt as interrupt:
        _end(_after_interrupt(interrupt, context=context, arguments=arguments), code=INTERRUPTED, arguments=arguments)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # the reader of a pipe has left: typer ends quietly
        message, code = _message(error)
        _end(message, code=code, arguments=arguments)


def _message(error: Exception) -> tuple[str, int]:
    match error:
        case typer.TyperException():
            return _usage(error), MISTAKE
        case MosloraError() | OSError():
            return f"error: {error}", MISTAKE
        case _ if _is_out_of_memory(error):
            return (
                f"error: out of memory ({str(error).partition('. ')[0]}): take a smaller batch"
                " (training.micro_batch_size, evaluation.batch_size), rank, model or model.dtype",
                MISTAKE,
            )
        case _:
            return (
                f"error: unexpected {type(error).__name__}: {error} (probably a mistake in moslora; "
                "run again with --debug for the traceback)",
                UNEXPECTED,
            )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether a device or the machine has run out of memory; torch has a type for the first only."""
    is_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    return is_cpu or isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _usage(error: typer.TyperException) -> str:
    """A wrong option or argument, and where to read about the right ones; empty where the help has been printed."""
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message and f"error: {message}"
    return f"error: {message[0].lower()}{message[1:]} (see: {context.command_path} --help)"


def _after_interrupt(interrupt: KeyboardInterrupt, *, context: Any, arguments: list[str]) -> str:
    """How to go on after Ctrl-C: the same line, with `--resume` for a command that has it and a run that was begun."""
    reason = f"interrupted: {interrupt}" if interrupt.args else "interrupted"
    program, name = context.info_name, context.invoked_subcommand
    command = context.command.get_command(context, name) if name else None
    cannot_resume = isinstance(interrupt, NothingSaved)
    if command is None or cannot_resume or all(parameter.name != "resume" for parameter in command.params):
        return f"{reason}; to start over: {shlex.join([program, *arguments])}"
    kept = [argument for argument in arguments if argument not in ("--resume", "--overwrite")]
    return f"{reason}; to resume: {shlex.join([program, *kept, '--resume'])}"


def _end(message: str, *, code: int, arguments: list[str]) -> None:
    """Print and leave; the traceback above the line if `--debug` was given."""
    if "--debug" in arguments:
        traceback.print_exc()
    if sys.stderr.isatty() and code == INTERRUPTED:
        typer.echo(err=True)  # leave the line that shows ^C
    if message:
        typer.echo(re.sub(r"\s*\n\s*", " ", message.strip()), err=True)  # spaces may belong to a path
    raise typer.Exit(code)
