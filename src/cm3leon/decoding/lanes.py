"""Lanes: conditionings read side by side in one batch, each with its own start.

    <pad> <pad> <eos> <mask:0> <break>   c1 c2 …      unconditional
    <eos> a     red   apple    <break>   c1 c2 …      conditional, fed the same ids

Padding is on the left, so all lanes take their next id at once. What the lanes of one
prompt have in common at their beginning, its neighbours, is read once and copied.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.model.transformer import Transformer

WORTH_SHARING = 16  # ids; reading fewer twice costs less than another pass


@dataclass(frozen=True)
class Lane:
    """Ids before the first drawn one, and the place of each in the document."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    next_position: int  # of the first drawn id; the others count on


def _alike(lanes: Sequence[Lane]) -> int:
    """Ids all of the lanes begin with, at the same places; never a lane's last one."""
    most = min(len(lane.ids) for lane in lanes) - 1
    for count in range(most):
        if len({(lane.ids[count], lane.positions[count]) for lane in lanes}) > 1:
            return count
    return most


class Lanes:
    """Several lanes and the keys and values of what they have read."""

    def __init__(
        self,
        model: Transformer,
        lanes: Sequence[Lane],
        room: int,
        groups: Sequence[Sequence[int]] = (),
    ) -> None:
        """Read all of each lane but its last id.

        Args:
            model: what reads.
            lanes: of any length from 1.
            room: most ids that `read` will be given per lane.
            groups: lanes that may begin alike; if given, each lane is in one of them.
        """
        longest = max(len(lane.ids) for lane in lanes)
        padding = [longest - len(lane.ids) for lane in lanes]
        device = model.embedding.weight.device
        ids, places = torch.zeros(2, len(lanes), longest, dtype=torch.long)
        for row, (lane, pads) in enumerate(zip(lanes, padding, strict=True)):
            ids[row, pads:] = torch.tensor(lane.ids)
            places[row, pads:] = torch.tensor(lane.positions)
        ids, places = ids.to(device), places.to(device)
        after = torch.tensor([lane.next_position for lane in lanes], device=device)

        self._model = model
        self._cache = model.cache(len(lanes), longest - 1 + room)
        self._cache.starts = torch.tensor(padding, device=device)
        self._place, self._after = places[:, -1], after
        self.last = ids[:, -1]  # the first to `read`
        done = self._share(lanes, padding, groups)
        if longest - 1 > done:
            rest = slice(done, longest - 1)
            model(ids[:, rest], places[:, rest], self._cache, head=ids[0, :1])

    def _share(
        self,
        lanes: Sequence[Lane],
        padding: Sequence[int],
        groups: Sequence[Sequence[int]],
    ) -> int:
        """Read what groups begin with; how many columns of the cache that fills."""
        alike = [_alike([lanes[row] for row in rows]) for rows in groups]
        ends = [
            padding[row] + ids
            for rows, ids in zip(groups, alike, strict=True)
            for row in rows
        ]
        done = min(ends, default=0)
        # columns before `done` are padding or the common beginning of the lane's group
        wanted = [max(done - padding[row] for row in rows) for rows in groups]
        if max(wanted, default=0) < WORTH_SHARING:
            return 0
        first = self._cache.keys[0]
        shape = (2, len(groups), max(wanted))
        ids, places = torch.zeros(shape, dtype=torch.long, device=first.device)
        for group, (rows, count) in enumerate(zip(groups, wanted, strict=True)):
            lane = lanes[rows[0]]
            ids[group, :count] = torch.tensor(lane.ids[:count])
            places[group, :count] = torch.tensor(lane.positions[:count])
        common = self._model.cache(len(groups), max(wanted), first.dtype)
        self._model(ids, places, common, head=ids[0, :1])
        for group, rows in enumerate(groups):
            for row in rows:
                start = padding[row]
                if done > start:
                    self._cache.copy(row, start, common, group, done - start)
        self._cache.advance(done)
        return done

    def read(
        self, ids: Int[Tensor, " batch"], head: Int[Tensor, " vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Read one id in each lane; logits of what follows it, for `head` rows only."""
        places = self._place[:, None]
        logits = self._model(ids[:, None], places, self._cache, head=head)
        # A lane whose answer has ended is still fed, and must not leave the table.
        self._place = self._after.clamp(max=self._model.config.context - 1)
        self._after = self._after + 1
        out: Tensor = logits[:, 0].float()
        return out
