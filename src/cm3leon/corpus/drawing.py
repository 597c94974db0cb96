"""Vector and bitmap artwork -> square RGB pictures on white, `SIDE` pixels wide."""

import io
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from cm3leon.images.pixels import on_white

SIDE = 128


def draw_svg(svg: str) -> Image.Image:
    """A square drawing on white.

    Raises:
        ValueError: the text is not SVG, or has no size.
    """
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=SIDE,
        height=SIDE,
        background="#ffffff",
        skip_system_fonts=True,
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")


def draw_svg_text(svg: str, *, width: int) -> Image.Image:
    """A drawing in its own proportions, transparent where nothing is drawn.

    Raises:
        ValueError: the text is not SVG, or has no size.
    """
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def draw_svg_file(path: Path, *, width: int) -> Image.Image:
    """The same of a file.

    Raises:
        ValueError: the file is not SVG, or has no size.
    """
    png = resvg_py.svg_to_bytes(svg_path=str(path), width=width, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def contain(
    image: Image.Image, *, trim: bool = True, margin: float = 0.03
) -> Image.Image | None:
    """The whole picture in a white square.

    Args:
        image: of any size and mode.
        trim: cut the empty border off first; nothing drawn at all gives `None`.
        margin: white on each side, as a share of the longer side.
    """
    image = on_white(image)
    if trim:
        drawn = np.asarray(image).min(axis=2) < 247
        if not drawn.any():
            return None
        rows, columns = np.where(drawn.any(axis=1))[0], np.where(drawn.any(axis=0))[0]
        image = image.crop(
            (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        )
    side = int(max(image.size) * (1 + 2 * margin)) or 1
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def cover(image: Image.Image, *, at: float = 0.5) -> Image.Image:
    """The largest square of a picture; `at` is 0 for its left end, 1 for its right."""
    image = on_white(image)
    side = min(image.size)
    left, top = int((image.width - side) * at), (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def is_blank(image: Image.Image) -> bool:
    """Whether nothing can be seen: a spread of less than 4 grey levels."""
    return bool(np.asarray(image).std() < 4)


def is_grey(image: Image.Image) -> bool:
    """Whether the channels differ by less than 3 levels on average."""
    levels = np.asarray(image).astype(int)
    return bool((levels.max(axis=2) - levels.min(axis=2)).mean() < 3)
