"""The mistakes a user can make, each with its own exception.

Every message is one line: what was given, what is allowed, what to do next.
"""

import json
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

FEW = 12  # names that are listed beside the nearest one


class MosloraError(Exception):
    """Base of all errors a user can mend; the command line prints it as one line and exits with code 2."""


class ConfigError(MosloraError, ValueError):
    """An option, a recipe field or a name is not allowed."""


class DivergedError(ConfigError):
    """Training came to numbers that are not finite."""


class UnsupportedLayerError(MosloraError, ValueError):
    """A target layer cannot carry the mixer."""


class CheckpointError(MosloraError, ValueError):
    """A checkpoint is missing, damaged, or does not fit the model."""


class DataError(MosloraError, ValueError):
    """A data source, a sample or a label cannot be used."""


class DriftError(MosloraError):
    """A folded or merged model does not give the adapter's outputs."""


class NoEffectError(DriftError):
    """An adapter changes nothing of what the model gives without it."""


class OutputError(MosloraError, OSError):
    """A file or folder cannot be written."""


class InUseError(OutputError):
    """A run's folder belongs to a process that is still alive."""


class MissingDependencyError(MosloraError, ImportError):
    """An optional package is needed and not installed."""


class NothingSaved(KeyboardInterrupt):
    """Ctrl-C before a run has written anything that it could go on from."""


def command(*parts: str | Path) -> str:
    """A `moslora` command line to copy: quoted, so that the shell reads what is meant."""
    texts = [f"./{part}" if isinstance(part, Path) and str(part).startswith("-") else str(part) for part in parts]
    return shlex.join(["moslora", *texts])


def python_line(code: str) -> str:
    """A line to copy that runs Python code in a shell."""
    return f"python -c {shlex.quote(code)}"


def python_text(value: str | Path) -> str:
    """A text as Python code, in double quotes: `python_line` puts single ones around."""
    return json.dumps(str(value), ensure_ascii=False)


def suggestion(given: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the allowed name nearest to `given`, or an empty string."""
    close = get_close_matches(given, list(allowed), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def allowed_names(near: str, names: Iterable[str], *, listed_by: str = "") -> str:
    """What follows a name that is not allowed: `near`, a suggestion, and the allowed names in parentheses.

    Beside a suggestion more names than `FEW` would only bury it: then the command that lists them stands there, if any.
    """
    known = [*names]
    if near and len(known) > FEW:
        return f"{near} ({listed_by} lists all)" if listed_by else near
    return f"{near} (allowed: {', '.join(known)})"


def unknown_name(what: str, given: str, allowed: Iterable[str], *, listed_by: str = "") -> ConfigError:
    """The error for a name that is not among the allowed ones, with the nearest valid name (see `allowed_names`)."""
    names = sorted(allowed)
    return ConfigError(f"unknown {what} '{given}'{allowed_names(suggestion(given, names), names, listed_by=listed_by)}")
