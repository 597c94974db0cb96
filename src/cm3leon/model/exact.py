"""Products of which no row depends on what stands beside it, by a bit, in fp32.

A processor adds up a row of a product in another order when there are other rows, or
other zeros behind it, and the sum is rounded otherwise. Not so if

    rows     come in fours
    columns  come in multiples of 32, the last ones masked
    sums     over columns are of 128 terms at most, then added one after the other

with which a request is drawn the same alone and in a batch. Measured on a CPU with
AVX-512 and torch's MKL, one and two threads (docs/log.md); tests/model/test_exact.py
notices where it does not hold.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, float32, nn

ROWS = 4
COLUMNS = 32
TERMS = 128


def rounded(columns: int) -> int:
    """Up to a multiple of `COLUMNS`.

    >>> rounded(33)
    64
    """
    return -(-columns // COLUMNS) * COLUMNS


def product(
    a: Float[Tensor, "*batch rows inner"],
    b: Float[Tensor, "*batch inner columns"],
    *,
    fours: bool,
) -> Float[Tensor, "*batch rows columns"]:
    """The product; zeros behind a row of `a` change nothing.

    Args:
        a: any rows.
        b: a matrix for each of `a`.
        fours: so further rows change nothing, either; without it is faster, and enough
            where there are always as many.
    """
    rows = a.shape[-2]
    if fours:
        a = _in_fours(a)
    out = a[..., :TERMS] @ b[..., :TERMS, :]
    for start in range(TERMS, a.shape[-1], TERMS):
        terms = slice(start, start + TERMS)
        out = out + a[..., terms] @ b[..., terms, :]
    return out[..., :rows, :]


class Linear(nn.Linear):
    """x W^T, in fp32 on a CPU each row as if it were alone."""

    def forward(self, x: Float[Tensor, "*batch inner"]) -> Float[Tensor, "*batch out"]:
        """The product."""
        rows = x.shape[:-1].numel()
        if rows % ROWS == 0 or x.dtype != float32 or x.is_cuda:
            return super().forward(x)
        out = super().forward(_in_fours(x.reshape(rows, -1)))
        return out[:rows].view(*x.shape[:-1], -1)


def _in_fours(x: Float[Tensor, "*batch rows inner"]) -> Tensor:
    """With rows of zeros behind, so that there are a multiple of `ROWS`."""
    return F.pad(x, (0, 0, 0, -x.shape[-2] % ROWS))
