"""Parts of a picture as cells of its grid of codes."""

from pathlib import Path

import numpy as np
from PIL import Image

from cm3leon.errors import RequestError
from cm3leon.images.picture_files import Refusal, decode
from cm3leon.images.pixels import square

SIDE = 512  # pixels at which a painted mask is looked at


def box_of(words: str) -> tuple[float, float, float, float]:
    """A box as it is written on the command line.

    Raises:
        RequestError: it is not four numbers that make a box inside the picture.

    >>> box_of("0,0.5,1,1")
    (0.0, 0.5, 1.0, 1.0)
    """
    try:
        left, top, right, bottom = map(float, words.split(","))
    except ValueError:
        raise RequestError(
            f"box {words!r} is not left,top,right,bottom; 0,0.5,1,1 is the lower half"
        ) from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise RequestError(
            f"box {words} is empty or not inside the picture; give "
            "left,top,right,bottom as shares of the side from 0 to 1"
        )
    return left, top, right, bottom


def cells_of_box(box: tuple[float, float, float, float], grid: int) -> list[int]:
    """The cells that a box touches, in raster order.

    Args:
        box: left, top, right, bottom, as shares of the picture's side.
        grid: cells a side.

    >>> cells_of_box((0.5, 0.0, 1.0, 0.3), 4)
    [2, 3, 6, 7]
    """
    left, top, right, bottom = box
    columns = range(int(left * grid), int(np.ceil(right * grid)))
    rows = range(int(top * grid), int(np.ceil(bottom * grid)))
    return [row * grid + column for row in rows for column in columns]


def cells_of_mask(path: str | Path, grid: int) -> list[int]:
    """The cells a painted mask touches: where it is lighter than middle grey.

    The mask is cropped as pictures are, to its centre square.

    Raises:
        RequestError: the file is no picture.
    """
    found = decode(Path(path))
    if isinstance(found, Refusal):
        raise RequestError(f"{path}: {found.kind} ({found.reason}); give a picture")
    side = SIDE // grid * grid
    light = (
        np.asarray(
            square(found, side)
            .convert("L")
            .resize((side, side), Image.Resampling.NEAREST)
        )
        > 127
    )
    blocks = light.reshape(grid, side // grid, grid, side // grid).any(axis=(1, 3))
    return [int(cell) for cell in np.flatnonzero(blocks)]
