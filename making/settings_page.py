"""The page of all settings, `docs/settings.md`, from the classes that check them: python -m making.settings_page."""

from collections.abc import Sequence
from pathlib import Path

from moslora.runs.commented import yaml_value
from moslora.runs.explaining import Explained, explained
from moslora.runs.recipe import LANGUAGE, RECIPES

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HEAD = """\
# Settings

Every setting of a [recipe](recipes-and-commands.md). This page is written by `python -m making.settings_page`; the same
is printed by

```sh
moslora settings
moslora settings data.train
moslora settings --kind vision_language
```

A key that is not a setting is refused with the nearest name. `--set GROUP.SETTING=VALUE` changes one for a run. Numbers
follow YAML 1.2: `1e-3` is a number. Beside `adapter.method` stand that method's own options: `moslora methods` lists
the [methods](methods.md), and [the method](method.md) explains the options of `moslora`, which are the fields of PEFT's
`LoraConfig` and those of the mixer.
"""
INTRODUCTIONS = {
    "language": "Language models: instructions, chats, texts. A recipe without `kind` is one of these.",
    "vision_language": "[Models that see pictures](vision.md). What is not listed is as for language models.",
    "subject": "[Text-to-image models](subjects.md). What is not listed is as for language models.",
}


def page() -> str:
    """The page's text."""
    parts, usual = [HEAD], {setting.name: setting for setting in explained(RECIPES[LANGUAGE])}
    for kind, recipe in RECIPES.items():
        found = explained(recipe)
        if kind != LANGUAGE:
            missing = sorted(usual.keys() - {setting.name for setting in found})
            found = [one for one in found if one != usual.get(one.name)]
            gone = f" It has none of: {', '.join(f'`{name}`' for name in missing)}."
        parts.append(f"## {kind}\n\n{INTRODUCTIONS[kind]}{gone if kind != LANGUAGE else ''}\n")
        parts += _tables(found)
    return "\n".join(parts)


def _tables(found: Sequence[Explained]) -> list[str]:
    groups = dict.fromkeys(setting.group for setting in found if not setting.is_group)
    return [_table(group, [one for one in found if one.group == group and not one.is_group]) for group in groups]


def _table(group: str, found: Sequence[Explained]) -> str:
    lines = [f"| {f'`{group}`' if group else 'the recipe'} | default | allowed | |", "|---|---|---|---|"]
    for setting in found:
        default = "required" if setting.is_required else yaml_value(setting.default)
        shown = f"`{default}`" if default and not setting.is_required else default
        lines.append(f"| `{setting.key}` | {shown} | {setting.allowed} | {setting.explanation} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
