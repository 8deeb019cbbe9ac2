"""YAML files that come with the package or are the user's own: found by name or path, and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

from moslora.errors import FEW, ConfigError, suggestion
from moslora.runs.settings import read_settings

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Shipped:
    """The files of one kind, such as recipes, in a folder of the package."""

    kind: str
    folder: str
    missing: str  # what is said of a file that is not there
    kept_by: str  # what keeps its own file, and where
    listed_by: str  # the command that lists them
    also: Mapping[str, Sequence[str]] = field(default_factory=dict)  # names of other files that are found in its place

    def names(self) -> list[str]:
        """The names of the shipped files, in alphabetical order."""
        files = (resources.files("moslora") / self.folder).iterdir()
        return sorted(Path(file.name).stem for file in files if file.name.endswith(".yaml"))

    def text(self, name: str) -> str:
        """The commented YAML of a shipped file. Raises `ConfigError` for an unknown name."""
        names = self.names()
        if name not in names:
            known = [*names, *chain.from_iterable(self.also.values())]
            near = suggestion(name, known)
            others = "".join(f"; {what}: {', '.join(those)}" for what, those in self.also.items())
            all_of_them = f"shipped: {', '.join(names)}{others}"
            listed = f"{self.listed_by} lists all" if near and len(known) > FEW else all_of_them
            raise ConfigError(
                f"unknown {self.kind} '{name}'{near} ({listed}; your own: a path ending in {' or '.join(SUFFIXES)})"
            )
        return (resources.files("moslora") / self.folder / f"{name}.yaml").read_text(encoding="utf-8")

    def summary(self, name: str) -> str:
        """The first comment line of a shipped file."""
        return self.text(name).partition("\n")[0].removeprefix("#").strip()

    def settings(self, name_or_path: str | Path) -> dict[str, Any]:
        """The settings of a shipped file or of the user's own, which is named after itself if it has no `name`.

        Raises `ConfigError`.
        """
        given = str(name_or_path)
        is_path = given.endswith(SUFFIXES) or "/" in given or "\\" in given
        text, name = (self._read(Path(given)), Path(given).stem) if is_path else (self.text(given), given)
        return {"name": name, **read_settings(text, source=f"{self.kind} {given}")}

    def _read(self, path: Path) -> str:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; give a YAML file ({self.kept_by.format(path=path)})")
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            beside = [str(file) for end in SUFFIXES for file in path.parent.glob(f"*{end}")]
            near, names = suggestion(str(path), beside), self.names()
            listed = f": {', '.join(names)}" if not near or len(names) <= FEW else f" as {self.listed_by} lists them"
            raise ConfigError(
                f"{self.missing.format(path=path)}{near} (shipped {self.kind}s, given without a suffix{listed})"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise ConfigError(f"cannot read the {self.kind} file {path}: {reason}") from error
