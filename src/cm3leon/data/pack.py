"""Documents end to end, cut into rows of equal length, as the authors pretrain."""

from collections.abc import Iterator
from typing import Any

import grain


class Pack(grain.IterDataset[list[int]]):  # type: ignore[misc]
    """Rows of `length` ids from an iterator of documents; none is lost at a cut."""

    def __init__(self, parent: grain.IterDataset[list[int]], length: int) -> None:
        super().__init__(parent)
        self.length = length

    def __iter__(self) -> "PackIterator":
        return PackIterator(iter(self._parent), self.length)


class PackIterator(grain.DatasetIterator[list[int]]):  # type: ignore[misc]
    """The ids left over from the last cut are part of its state."""

    def __init__(self, parent: Iterator[list[int]], length: int) -> None:
        super().__init__(parent)
        self.length = length
        self.left: list[int] = []

    def __next__(self) -> list[int]:
        while len(self.left) < self.length:
            self.left += next(self._parent)
        row, self.left = self.left[: self.length], self.left[self.length :]
        return row

    def get_state(self) -> dict[str, Any]:
        """Where the documents stand, and the ids not yet given out."""
        return {"parent": self._parent.get_state(), "left": list(self.left)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `get_state`."""
        self._parent.set_state(state["parent"])
        self.left = list(state["left"])
