"""Contact sheets: pictures in a grid, each with its words below."""

import math
import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


def contact_sheet(
    pictures: Sequence[tuple[str, Image.Image]], *, columns: int = 6, side: int = 128
) -> Image.Image:
    """Labelled pictures, `side` pixels each, left to right and top to bottom."""
    font = ImageFont.load_default(size=11)
    letters = max(8, side // 6)
    lines, line, gap = 3, 13, 6
    columns = max(1, min(columns, len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    cell = (side + gap, side + lines * line + gap)
    sheet = Image.new("RGB", (columns * cell[0] + gap, rows * cell[1] + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (words, picture) in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = gap + column * cell[0], gap + row * cell[1]
        scaled = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(scaled, (left, top))
        wrapped = textwrap.wrap(words, letters)[:lines]
        for number, text in enumerate(wrapped):
            place = (left, top + side + 1 + number * line)
            draw.text(place, text, fill="black", font=font)
    return sheet
