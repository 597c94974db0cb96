"""Pictures that look like an earlier one.

    twin(i) = the first kept j before i with  RMS(t(i) - t(j)) < limit

t: thumbnail, 16 x 16 means of each channel in grey levels; RMS: root mean square.
Thumbnails hold sums of 64 pixels, so all products are whole numbers that float64 holds
exactly: the answer depends on no library's order of adding up.
"""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import UInt16

_PIXELS_OF_A_SQUARE = 64
_BLOCK = 256


def find_twins(
    thumbnails: UInt16[np.ndarray, "pictures values"],
    order: Sequence[int],
    *,
    keep: Collection[int] = (),
    limit: float = 3.0,
) -> list[int | None]:
    """For each picture the kept one it looks like, `None` for those to keep.

    Args:
        thumbnails: channel sums over 64 pixels each.
        order: pictures in the order in which they are kept or not.
        keep: pictures that stay whatever they look like.
        limit: grey levels, RMS.
    """
    twins: list[int | None] = [None] * len(thumbnails)
    values = thumbnails[np.asarray(order, dtype=int)].astype(np.float64)
    norms = (values**2).sum(axis=1)
    nearest = (limit * _PIXELS_OF_A_SQUARE) ** 2 * thumbnails.shape[1]
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        products = values[block] @ values[: start + _BLOCK].T
        distances = norms[block, None] + norms[None, : start + _BLOCK] - 2 * products
        for row, near in enumerate(distances < nearest):
            if order[start + row] in keep:
                continue
            before: list[int] = np.flatnonzero(near[: start + row]).tolist()
            kept = (order[place] for place in before if twins[order[place]] is None)
            twins[order[start + row]] = next(kept, None)
    return twins
