"""Keys and values of ids already read, so that each id is read once.

    prefix   | k k k k k k . |   read once for all lanes of a group, such as neighbours
    lane 0   | k k k . . . . |   each lane's own ids, behind them its room
    lane 1   | k k k k k . . |

Every lane has a length of its own. Where a key lies says nothing about its place in the
document: positions are added to what is read.
"""

from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cm3leon.model.exact import product, rounded
from cm3leon.model.kernels import Kernels


@dataclass
class KVCache:
    """Room for `capacity` ids in each lane of a batch.

    Args:
        keys: of each layer.
        values: of each layer.
        lengths: ids that each lane has read, those of its prefix not counted; parts of
            a cache share them, as they share its memory.
        prefix: what stands before the lanes: its i-th lane before the i-th group, as
            many lanes to each. None: nothing.
    """

    keys: list[Float[Tensor, "batch heads capacity head_dim"]]
    values: list[Float[Tensor, "batch heads capacity head_dim"]]
    lengths: Int[Tensor, " batch"]
    prefix: "KVCache | None" = None
    kernels: Kernels | None = None  # attend to bf16 keys and values
    exact: bool = False  # no lane depends on others by a bit
    longest: int = field(init=False)  # of `lengths`
    _even: bool = field(init=False, repr=False)  # all lengths are the longest
    _bias: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.measure()

    def measure(self) -> None:
        """Look at `lengths` again, after a part of the lanes has read."""
        self.longest = int(self.lengths.max())
        self._even = bool((self.lengths == self.longest).all())

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
        keys, values = (
            [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
            for _ in range(2)
        )
        return cls(keys, values, torch.zeros(batch, dtype=torch.long, device=device))

    @property
    def capacity(self) -> int:
        """Ids per lane that fit."""
        return self.keys[0].shape[2]

    @property
    def shown(self) -> int:
        """Columns of a prefix that are read: those in use, rounded up.

        So what follows stands where the processor adds it up in the same order.
        """
        return min(rounded(self.longest), self.capacity)

    def used(self, ids: int) -> int:
        """Columns that are read when each lane has that many ids more."""
        end = self.longest + ids
        return min(rounded(end), self.capacity) if self.exact else end

    @property
    def read(self) -> Int[Tensor, " batch"]:
        """Ids before each lane's next one, those of its prefix counted."""
        if self.prefix is None:
            return self.lengths
        groups = len(self.prefix.lengths)
        return self.lengths + self.prefix.lengths.repeat_interleave(
            len(self.lengths) // groups
        )

    def begin(self, ids: int) -> None:
        """Make ready to read that many ids in each lane: called once a pass."""
        end = self.longest + ids
        assert end <= self.capacity, f"{end} ids in a cache for {self.capacity}"
        if self.kernels is not None:
            return
        seen = self.visible(ids)
        zeros = torch.zeros(seen.shape, device=seen.device)
        self._bias = zeros.masked_fill(~seen, -torch.inf)

    def attend(
        self,
        layer: int,
        q: Float[Tensor, "batch heads time head_dim"],
        k: Float[Tensor, "batch heads time head_dim"],
        v: Float[Tensor, "batch heads time head_dim"],
    ) -> Float[Tensor, "batch heads time head_dim"]:
        """What new queries find in prefix, earlier ids and new ones, which are stored.

        softmax(q k^T / sqrt(head_dim)) v as in the model, the softmax in fp32; lanes of
        a group read their prefix together, as one lane with as many queries.
        """
        if self.kernels is not None:
            return self._attend_compiled(self.kernels, layer, q, k, v)
        assert self._bias is not None, "begin comes before attend"
        keys, values = self.store(layer, k, v)
        # in a step every lane reads one id, whatever the batch
        exactly = partial(product, fours=q.shape[2] > 1)
        times = exactly if self.exact else torch.matmul
        q = q.to(keys.dtype) * q.shape[-1] ** -0.5
        scores = times(q, keys.transpose(-1, -2))
        if self.prefix is None or not (count := self.prefix.shown):
            shares = (scores.float() + self._bias).softmax(-1)
            return times(shares.to(values.dtype), values).to(v.dtype)
        before = self.prefix.keys[layer][:, :, :count]
        common = self._apart(times(self._together(q), before.transpose(-1, -2)))
        scores = torch.cat([common, scores], -1)
        shares = (scores.float() + self._bias).softmax(-1).to(values.dtype)
        found = times(
            self._together(shares[..., :count]),
            self.prefix.values[layer][:, :, :count],
        )
        mixed = self._apart(found) + times(shares[..., count:], values)
        return mixed.to(v.dtype)

    def advance(self, ids: int) -> None:
        """Count ids that every layer has stored, as many in each lane."""
        self.lengths += ids
        self.longest += ids

    def trim(self, lengths: Int[Tensor, " batch"]) -> None:
        """Forget what lanes have read beyond these lengths, such as padding."""
        assert bool((lengths <= self.lengths).all()), "a lane has not read that much"
        self.lengths.copy_(lengths)
        self.measure()

    def part(self, rows: slice) -> "KVCache":
        """Some lanes in the same memory, without their prefix.

        What they read from now on is unknown to other parts made before.
        """
        return KVCache(
            [keys[rows] for keys in self.keys],
            [values[rows] for values in self.values],
            self.lengths[rows],
            kernels=self.kernels,
            exact=self.exact,
        )

    def copy(self, source: int, target: int) -> None:
        """Put what one lane has read into another."""
        length = int(self.lengths[source])
        for tensor in (*self.keys, *self.values):
            tensor[target, :, :length] = tensor[source, :, :length]
        self.lengths[target] = length

    def visible(self, ids: int) -> Bool[Tensor, "batch 1 ids seen"]:
        """Which keys, the prefix's first, each of the next `ids` queries sees.

        A query sees its prefix, its lane's earlier ids, and new ones up to itself.
        """
        device = self.lengths.device
        columns = torch.arange(self.used(ids), device=device)
        last = self.lengths[:, None] + torch.arange(ids, device=device)
        seen = (columns <= last[..., None])[:, None]
        before = self.prefix
        if before is None or not before.shown:
            return seen
        columns = torch.arange(before.shown, device=device)
        real = columns < before.lengths[:, None]
        real = real.repeat_interleave(len(self.lengths) // len(before.lengths), 0)
        return torch.cat([real[:, None, None].expand(-1, 1, ids, -1), seen], -1)

    def store(
        self,
        layer: int,
        k: Float[Tensor, "batch heads time head_dim"],
        v: Float[Tensor, "batch heads time head_dim"],
    ) -> tuple[
        Float[Tensor, "batch heads seen head_dim"],
        Float[Tensor, "batch heads seen head_dim"],
    ]:
        """Put new keys and values behind each lane's; all of this layer so far."""
        keys, values = self.keys[layer], self.values[layer]
        time = k.shape[2]
        end = self.longest + time
        if self._even:
            keys[:, :, self.longest : end] = k
            values[:, :, self.longest : end] = v
        else:
            lanes = torch.arange(len(keys), device=keys.device)[:, None]
            columns = self.lengths[:, None] + torch.arange(time, device=keys.device)
            keys[lanes, :, columns] = k.transpose(1, 2).to(keys.dtype)
            values[lanes, :, columns] = v.transpose(1, 2).to(values.dtype)
        seen = self.used(time)
        return keys[:, :, :seen], values[:, :, :seen]

    def _attend_compiled(
        self, kernels: Kernels, layer: int, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """`attend` in one kernel."""
        prefix: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        if self.prefix is not None and self.prefix.longest:
            prefix = (
                self.prefix.keys[layer],
                self.prefix.values[layer],
                self.prefix.lengths,
            )
        found = kernels.attend(
            q.bfloat16(),
            k.bfloat16(),
            v.bfloat16(),
            self.keys[layer],
            self.values[layer],
            self.lengths.contiguous(),
            *prefix,
        )
        return found.transpose(1, 2).to(v.dtype)

    def _together(
        self, x: Float[Tensor, "batch heads time inner"]
    ) -> Float[Tensor, "groups heads queries inner"]:
        """The lanes of each group as one lane with all their queries."""
        assert self.prefix is not None
        groups, (_, heads, _, inner) = len(self.prefix.lengths), x.shape
        parted = x.view(groups, -1, *x.shape[1:]).transpose(1, 2)
        return parted.reshape(groups, heads, -1, inner)

    def _apart(
        self, x: Float[Tensor, "groups heads queries inner"]
    ) -> Float[Tensor, "batch heads time inner"]:
        """The way back from `_together`."""
        groups, heads, _, inner = x.shape
        lanes = len(self.lengths) // groups
        parted = x.view(groups, heads, lanes, -1, inner).transpose(1, 2)
        return parted.reshape(groups * lanes, heads, -1, inner)
