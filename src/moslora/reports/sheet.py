"""Several drawings on one sheet: a single PNG or SVG file."""

import io
import re
from collections.abc import Sequence

from PIL import Image

from moslora.reports.drawing import Plot, image_bytes

Box = tuple[float, float]  # left and top
GAP = 0.04  # of a drawing's width, around each


def sheet_bytes(plots: Sequence[Plot], kind: str) -> bytes:
    """The drawings in two columns, each under the shorter one so far, as a "png" or "svg" file."""
    images = [image_bytes(plot, kind) for plot in plots]
    return _png(images) if kind == "png" else _svg(images, [plot.name for plot in plots])


def _places(sizes: Sequence[tuple[float, float]]) -> tuple[list[Box], float, float]:
    """The corner of each drawing, and the sheet's width and height."""
    width = max(size[0] for size in sizes)
    gap = GAP * width
    heights = [gap, gap]
    corners = []
    for _, height in sizes:
        column = heights.index(min(heights))
        corners.append((gap + column * (width + gap), heights[column]))
        heights[column] += height + gap
    return corners, gap + (width + gap) * min(2, len(sizes)), max(heights)


def _png(images: Sequence[bytes]) -> bytes:
    opened = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
    corners, width, height = _places([image.size for image in opened])
    sheet = Image.new("RGB", (round(width), round(height)), "white")
    for image, (left, top) in zip(opened, corners, strict=True):
        sheet.paste(image, (round(left), round(top)))
    stream = io.BytesIO()
    sheet.save(stream, format="PNG", dpi=opened[0].info.get("dpi", (200, 200)))
    return stream.getvalue()


def _svg(images: Sequence[bytes], names: Sequence[str]) -> bytes:
    texts = [image.decode() for image in images]
    sizes = []
    for text in texts:
        found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
        assert found, "matplotlib writes a viewBox"
        sizes.append((float(found[1]), float(found[2])))
    corners, width, height = _places(sizes)
    parts = []
    for text, name, size, (left, top) in zip(texts, names, sizes, corners, strict=True):
        body = text[text.index(">", text.index("<svg")) + 1 :]
        body = re.sub(r'(\bid=")([^"]+")', rf"\g<1>{name}-\2", body)
        body = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", body)
        parts.append(f'<svg x="{left:g}" y="{top:g}" width="{size[0]:g}" height="{size[1]:g}">{body}')
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        f' viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">'
    )
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *parts, "</svg>\n"]).encode()
