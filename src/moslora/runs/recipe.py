"""A recipe: every setting of one run, read from YAML, overridden from the command line, checked before anything loads.

Its `kind` says what sort of run it is; a recipe without one is a language model's. Unknown keys are refused with the
nearest valid name. An adapter's own options are kept as they are given: `moslora.adapter.methods` checks them against
the method's PEFT class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from moslora.data.files import file_format
from moslora.errors import ConfigError, command, unknown_name
from moslora.runs.groups import ModelSettings, Recipe, ScoringSettings
from moslora.runs.language_settings import LanguageRecipe
from moslora.runs.settings import override
from moslora.runs.shipped import Shipped
from moslora.runs.skeletons import SKELETONS, skeleton_settings, skeleton_text
from moslora.runs.subject_settings import SubjectRecipe
from moslora.runs.validation import validated
from moslora.runs.vision_settings import VisionRecipe

SHIPPED = Shipped(
    "recipe",
    "recipes",
    missing="there is no recipe file {path}",
    kept_by="a run keeps its own as {path}/recipe.yaml",
    listed_by="moslora recipes list",
    also=MappingProxyType({"skeletons": SKELETONS}),
)
LANGUAGE = "language"
RECIPES: Mapping[str, type[Recipe]] = MappingProxyType(
    {LANGUAGE: LanguageRecipe, "vision_language": VisionRecipe, "subject": SubjectRecipe}
)


def recipe_class(kind: Any) -> type[Recipe]:
    """The recipe of a kind; none given: a language model's. Raises ConfigError for a kind that is not known."""
    if kind not in RECIPES and kind is not None:
        raise unknown_name("kind of run", str(kind), RECIPES)
    return RECIPES[kind or LANGUAGE]


def model_settings(kind: str, **given: Any) -> ModelSettings:
    """The settings of a kind's model."""
    return _group(kind, "model")(**given)


def scoring_settings(kind: str) -> type[ScoringSettings]:
    """The class of a kind's evaluation settings."""
    return _group(kind, "evaluation")


def _group(kind: str, name: str) -> Any:
    return recipe_class(kind).model_fields[name].annotation


@dataclass(frozen=True)
class RecipeSummary:
    """What `moslora recipes list` shows of a shipped recipe or skeleton."""

    name: str
    summary: str  # the first comment line of the file
    model: str
    method: str
    data: str
    is_skeleton: bool = False


def parse_recipe(settings: Mapping[str, Any], *, source: str) -> Recipe:
    """Check settings and fill in the defaults; an empty group counts as not given.

    Raises `ConfigError` naming `source`, the setting and its value.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return validated(recipe_class(given.get("kind")), given, source=source)


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A shipped recipe or skeleton by name, or a YAML file, with overrides such as `training.learning_rate=1e-3`.

    Override values are YAML. A file without `name` is named after itself. Raises `ConfigError`.
    """
    source = f"recipe {name_or_path}"
    name = str(name_or_path)
    if file_format(Path(name)) is not None:
        raise ConfigError(f"{name} is data: `{command('init', name)}` writes a recipe for it")
    settings = {"name": name, **skeleton_settings(name)} if name in SKELETONS else SHIPPED.settings(name_or_path)
    for assignment in overrides:
        override(settings, assignment, source=source)
    return parse_recipe(settings, source=source)


def recipe_names() -> list[str]:
    """The names of the shipped recipes."""
    return SHIPPED.names()


def list_recipes() -> list[RecipeSummary]:
    """The shipped recipes, in alphabetical order."""
    return [_summary(name) for name in recipe_names()]


def list_skeletons() -> list[RecipeSummary]:
    """What a recipe of one's own may start from."""
    return [_summary(name) for name in SKELETONS]


def recipe_text(name: str) -> str:
    """The commented YAML of a shipped recipe, or of a skeleton. Raises `ConfigError` for an unknown name."""
    return skeleton_text(name) if name in SKELETONS else SHIPPED.text(name)


def _summary(name: str) -> RecipeSummary:
    recipe = load_recipe(name)
    return RecipeSummary(
        name=name,
        summary=recipe_text(name).partition("\n")[0].removeprefix("#").strip(),
        model=recipe.model.path,
        method=recipe.adapter.method,
        data=", ".join(recipe.data.sources),
        is_skeleton=name in SKELETONS,
    )
