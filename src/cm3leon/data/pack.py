"""Documents end to end, cut into rows of equal length, as the authors pretrain.

A document is a list of ids, or of ids with whatever goes with each.
"""

from collections.abc import Iterator
from typing import Any

import grain


class Pack(grain.IterDataset[list[Any] | None]):  # type: ignore[misc]
    """Rows of `length` ids from an iterator of documents; none is lost at a cut.

    Of every `ranks` rows only that of `rank` is given out, and None for the others.
    """

    def __init__(
        self,
        parent: grain.IterDataset[list[Any]],
        length: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        super().__init__(parent)
        self.length, self.rank, self.ranks = length, rank, ranks

    def __iter__(self) -> "PackIterator":
        return PackIterator(iter(self._parent), self.length, self.rank, self.ranks)


class PackIterator(grain.DatasetIterator[list[Any] | None]):  # type: ignore[misc]
    """The ids left over from the last cut are part of its state."""

    def __init__(
        self, parent: Iterator[list[Any]], length: int, rank: int, ranks: int
    ) -> None:
        super().__init__(parent)
        self.length, self.rank, self.ranks = length, rank, ranks
        self.left: list[Any] = []
        self.given = 0

    def __next__(self) -> list[Any] | None:
        while len(self.left) < self.length:
            self.left += next(self._parent)
        row, self.left = self.left[: self.length], self.left[self.length :]
        self.given += 1
        return row if (self.given - 1) % self.ranks == self.rank else None

    def get_state(self) -> dict[str, Any]:
        """Where the documents stand, and the ids not yet given out.

        The same for every rank, and for any number of them: it is asked for between
        batches, of which each rank has as many rows.
        """
        return {"parent": self._parent.get_state(), "left": list(self.left)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`."""
        self._parent.set_state(state["parent"])
        self.left = list(state["left"])
        self.given = 0
