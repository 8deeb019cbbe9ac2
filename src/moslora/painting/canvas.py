"""A white page that is filled from top to bottom with text, pictures and lines. Imports no torch."""

from PIL import Image, ImageDraw

from moslora.painting.lettering import font_for, line_height, wrapped

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the page

INK, GREY, PALE, WHITE = "#1a1a1a", "#6b6b6b", "#f0f0f0", "#ffffff"


class Canvas:
    """A page of a width in pixels; `y` is how far it is filled. It grows with what is put on it."""

    def __init__(self, width: int, *, scale: int) -> None:
        self.width, self.scale, self.y = width, scale, 0
        self._page = Image.new("RGB", (width, 1), WHITE)

    def write(
        self,
        text: str,
        x: int,
        *,
        width: int,
        size: int,
        colour: str = INK,
        is_centred: bool = False,
        most_lines: int | None = None,
    ) -> None:
        """Lines of text from `y` on, which is below them afterwards; `size` is that of the letters at scale 1."""
        pixels = size * self.scale
        letters = font_for(text, pixels)
        for line in wrapped(text, width, size_pixels=pixels, most_lines=most_lines):
            self._reserve(self.y + line_height(pixels))
            start, anchor = (x + width / 2, "ma") if is_centred else (x, "la")
            self._pen.text((start, self.y), line, fill=colour, font=letters, anchor=anchor)
            self.y += line_height(pixels)

    def paste(self, picture: Image.Image, box: Box) -> Box:
        """A picture in the middle of a box, whole and as large as fits; where it stands."""
        width, height = box[2] - box[0], box[3] - box[1]
        share = min(width / picture.width, height / picture.height)
        size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
        x, y = box[0] + (width - size[0]) // 2, box[1] + (height - size[1]) // 2
        self._reserve(box[3])
        self._page.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (x, y))
        return x, y, x + size[0], y + size[1]

    def fill(self, box: Box, colour: str) -> None:
        """A box of one colour."""
        self._reserve(box[3])
        self._page.paste(colour, box)

    def arrow(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """A thin line to the right or down, with a head at its end."""
        self._reserve(end[1] + self.scale)
        head, (x, y) = 4 * self.scale, end
        other_side = (x - head, y + head) if start[1] == y else (x + head, y - head)
        self._pen.line((start, end), fill=GREY, width=self.scale)
        self._pen.line(((x - head, y - head), end, other_side), fill=GREY, width=self.scale, joint="curve")

    def cut(self) -> Image.Image:
        """The page as far as it is filled."""
        self._reserve(self.y)
        return self._page.crop((0, 0, self.width, self.y))

    @property
    def _pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._page)

    def _reserve(self, bottom: int) -> None:
        if bottom > self._page.height:
            taller = Image.new("RGB", (self.width, max(bottom, 2 * self._page.height)), WHITE)
            taller.paste(self._page)
            self._page = taller
