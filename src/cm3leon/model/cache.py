"""Keys and values of ids already read, so that each id is read once."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class KVCache:
    """Room for `capacity` ids in each lane of a batch.

    Lanes of different lengths are padded on the left: `starts` says where each begins.
    """

    keys: list[Float[Tensor, "batch heads capacity head_dim"]]
    values: list[Float[Tensor, "batch heads capacity head_dim"]]
    starts: Int[Tensor, " batch"]
    length: int = 0  # ids read so far, padding included

    @classmethod
    def allocate(
        cls,
        *,
        layers: int,
        batch: int,
        heads: int,
        capacity: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "KVCache":
        """An empty cache."""
        shape = (batch, heads, capacity, head_dim)
        return cls(
            keys=[
                torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)
            ],
            values=[
                torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)
            ],
            starts=torch.zeros(batch, dtype=torch.long, device=device),
        )

    @property
    def capacity(self) -> int:
        """Ids per lane that fit."""
        return self.keys[0].shape[2]

    def append(
        self,
        layer: int,
        keys: Float[Tensor, "batch heads time head_dim"],
        values: Float[Tensor, "batch heads time head_dim"],
    ) -> tuple[
        Float[Tensor, "batch heads seen head_dim"],
        Float[Tensor, "batch heads seen head_dim"],
    ]:
        """Store new keys and values behind `length`; all of this layer so far.

        `length` itself moves once per forward pass, by `advance`.
        """
        end = self.length + keys.shape[2]
        assert end <= self.capacity, f"{end} ids in a cache for {self.capacity}"
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def copy(self, lane: int, start: int, other: "KVCache", row: int, ids: int) -> None:
        """Take the first `ids` of another cache's lane `row`, to stand from `start`."""
        for layer in range(len(self.keys)):
            for ours, theirs in (
                (self.keys[layer], other.keys[layer]),
                (self.values[layer], other.values[layer]),
            ):
                ours[lane, :, start : start + ids] = theirs[row, :, :ids]

    def advance(self, ids: int) -> None:
        """Count ids that every layer has stored."""
        self.length += ids

    def visible(self, ids: int) -> Tensor:
        """Which keys each of the next `ids` queries sees: batch 1 ids seen, boolean.

        A query sees the keys from its lane's start up to itself; a query in the
        padding sees itself alone, so that no row is empty.
        """
        device = self.starts.device
        keys = torch.arange(self.length + ids, device=device)
        queries = keys[self.length :, None]
        causal = keys <= queries
        begun = keys >= self.starts[:, None, None, None]
        return (causal & begun) | (keys == queries)
