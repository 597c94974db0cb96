"""Parts of a picture as cells of its grid of codes."""

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import numpy as np

from cm3leon.errors import RequestError
from cm3leon.images.picture_files import Refusal, decode


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

    One painted pixel is enough. The mask is cropped as pictures are, to its centre
    square, whatever its size.

    Raises:
        RequestError: the file is no picture.
    """
    found = decode(Path(path))
    if isinstance(found, Refusal):
        raise RequestError(f"{path}: {found.kind} ({found.reason}); give a picture")
    light = np.asarray(found.convert("L")) > 127
    edge = min(found.size)
    across, down = (_pixels_of_cells(side, edge, grid) for side in found.size)
    rows = np.stack([light[pixels].any(axis=0) for pixels in down])
    cells = np.stack([rows[:, pixels].any(axis=1) for pixels in across], axis=1)
    return [int(cell) for cell in np.flatnonzero(cells)]


def check_hidden(cells: Collection[int], count: int, told: str = "the mask") -> None:
    """Refuse to hide none or all of a picture's cells.

    Args:
        cells: hidden ones, each once.
        count: of the picture's cells.
        told: what names them.
    """
    if not cells or len(cells) == count:
        what = "everything" if cells else "nothing"
        raise RequestError(
            f"{told} hides {what}; hide 1 to {count - 1} of the {count} cells"
        )


def _pixels_of_cells(side: int, edge: int, grid: int) -> list[slice]:
    """The pixels of one side of a picture that each cell of its centre square touches.

    Args:
        side: pixels.
        edge: of the square; its borders may cut pixels in half.
        grid: cells a side.

    >>> _pixels_of_cells(10, 4, 2)
    [slice(3, 5, None), slice(5, 7, None)]
    """
    unit = 2 * grid  # to a pixel, so that all borders are whole numbers
    borders = [(side - edge) * grid + 2 * edge * cell for cell in range(grid + 1)]
    return [slice(one // unit, -(-end // unit)) for one, end in pairwise(borders)]
