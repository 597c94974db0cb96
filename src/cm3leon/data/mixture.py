"""Weighted choice among the groups of a collection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np


@runtime_checkable
class Indexed(Protocol):
    """What grain reads from."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Selection:
    """Some of the things of a sequence, as a sequence."""

    source: Indexed
    numbers: Sequence[int] | np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Any:
        return self.source[int(self.numbers[index])]


def interleave(
    groups: Mapping[str, Indexed], shares: Mapping[str, float], seed: int
) -> "grain.MapDataset[Any]":
    """Without end: each group shuffled anew at each pass, the groups by their shares.

    Args:
        groups: none of them empty.
        shares: of each group, in any unit.
        seed: of the order.
    """
    parts = [
        grain.MapDataset.source(groups[name]).seed(seed + number).shuffle().repeat()
        for number, name in enumerate(shares)
    ]
    total = sum(shares.values())
    weights = [share / total for share in shares.values()]
    return grain.MapDataset.mix(parts, weights=weights).seed(seed)
