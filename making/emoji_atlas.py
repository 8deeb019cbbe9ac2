"""Draws the sheets of sprites that `moslora.emoji` ships, from the artists' vector drawings.

    pip install resvg-py && npm pack @iconify-json/noto @iconify-json/twemoji   (unpack both)
    python -m making.emoji_atlas --noto noto/package --twemoji twemoji/package

Each sheet holds one cell a concept, in the order of `concepts.tsv`, each sprite trimmed to what is drawn.
"""

import argparse
import io
import json
from pathlib import Path

from PIL import Image

from moslora.emoji.sprites import CELL, COLUMNS, FOLDER, STYLES, concepts

# The drawing is made larger than its cell and then reduced, so that its thin lines stay smooth.
_OVERSAMPLING = 4
# Colours a sprite keeps: no difference at the size of the scenes, and half the bytes.
_COLOURS = 96


def main() -> None:
    """Write `noto.webp` and `twemoji.webp` (lossless) beside `concepts.tsv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for style in STYLES:
        parser.add_argument(f"--{style}", type=Path, required=True, help=f"the unpacked @iconify-json/{style}")
    options = vars(parser.parse_args())
    for style in STYLES:
        sheet = _sheet(options[style])
        sheet.save(FOLDER / f"{style}.webp", lossless=True, quality=100, method=6)


def _sheet(package: Path) -> Image.Image:
    icons = json.loads((package / "icons.json").read_text(encoding="utf-8"))
    names = json.loads((package / "chars.json").read_text(encoding="utf-8"))
    rows = -(-len(concepts()) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL, rows * CELL))
    for index, concept in enumerate(concepts()):
        name = names.get(concept.code) or names[f"{concept.code}-fe0f"]
        sprite = _drawing(icons, name)
        place = (
            index % COLUMNS * CELL + (CELL - sprite.width) // 2,
            index // COLUMNS * CELL + (CELL - sprite.height) // 2,
        )
        sheet.paste(sprite, place)
    return sheet


def _drawing(icons: dict, name: str) -> Image.Image:
    import resvg_py

    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"][name]
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    vector = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}">'
    drawn = resvg_py.svg_to_bytes(svg_string=f"{vector}{icon['body']}</svg>", width=CELL * _OVERSAMPLING)
    picture = Image.open(io.BytesIO(bytes(drawn))).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox())
    scale = CELL / max(picture.size)
    small = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    return small.quantize(_COLOURS, Image.Quantize.FASTOCTREE).convert("RGBA")


if __name__ == "__main__":
    main()
