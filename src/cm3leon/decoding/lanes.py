"""Lanes: conditionings read side by side in one batch.

    neighbours   <eos> T1 <break> I1 <break>              read once for the lanes below
    conditional      a red apple <break>     c1 c2 …
    unconditional    <mask:0> <break>        c1 c2 …      fed the same drawn ids

The lanes of one request stand one after the other. What they begin with alike, its
neighbours, is the prefix of their cache, and requests with the same one read it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.model.cache import KVCache
from cm3leon.model.language_model import LanguageModel
from cm3leon.model.packed import linear

WORTH_SHARING = 16  # ids; reading fewer twice costs less than another pass
AT_ONCE = 512  # ids of prefixes in one pass: more fall out of the processor's caches
ALIGNED = 16  # columns that a processor adds up together


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
    """The lanes of several requests and the keys and values of what they have read."""

    def __init__(
        self,
        model: LanguageModel,
        requests: Sequence[Sequence[Lane]],
        room: int,
        head: Int[Tensor, " vocab"],
    ) -> None:
        """Read all of each lane but its last id.

        Args:
            model: what reads.
            requests: the lanes of each, the same number in each; of any length from 1.
            room: most ids that `read` will be given per lane.
            head: the ids to score, in this order.
        """
        lanes = [lane for request in requests for lane in request]
        device = model.embedding.weight.device
        alike = [_alike(request) if len(request) > 1 else 0 for request in requests]
        if max(alike) < WORTH_SHARING:
            alike = [0] * len(requests)
        each = len(lanes) // len(requests)
        begun = [count for count in alike for _ in range(each)]
        rests = [len(lane.ids) - 1 - n for lane, n in zip(lanes, begun, strict=True)]
        self._model = model
        self._head = linear(model.head_rows[head.to(device)], model.packing)
        self._cache = model.cache(len(lanes), max(rests) + room)
        if max(alike):
            firsts = [request[0] for request in requests]
            self._cache.prefix = self._prefix(firsts, alike)
        self._place = torch.tensor(
            [lane.positions[-1] for lane in lanes], device=device
        )
        self._after = torch.tensor(
            [lane.next_position for lane in lanes], device=device
        )
        self.last = torch.tensor([lane.ids[-1] for lane in lanes], device=device)
        self._memorise(lanes, begun, rests, self._cache)

    def _prefix(self, lanes: Sequence[Lane], counts: Sequence[int]) -> KVCache:
        """A cache of the first ids of lanes, one that comes several times read once."""
        found: dict[tuple[tuple[int, ...], ...], int] = {}
        rows: list[int] = []
        kept: list[int] = []
        for number, (lane, count) in enumerate(zip(lanes, counts, strict=True)):
            key = (lane.ids[:count], lane.positions[:count])
            if key not in found:
                found[key] = len(kept)
                kept.append(number)
            rows.append(found[key])
        lengths = [counts[number] for number in kept]
        # what follows stands where the processor adds it up in the same order
        cache = self._model.cache(len(kept), -(-max(lengths) // ALIGNED) * ALIGNED)
        each = max(1, AT_ONCE // max(lengths))
        for start in range(0, len(kept), each):
            rows_here = slice(start, start + each)
            some = [lanes[i] for i in kept[rows_here]]
            part = cache.part(rows_here)
            self._memorise(some, [0] * len(some), lengths[rows_here], part)
        cache.advance(max(lengths))
        cache.trim(torch.tensor(lengths, device=cache.lengths.device))
        if len(kept) == len(lanes):
            return cache
        return cache.select(torch.tensor(rows, device=cache.lengths.device))

    def _memorise(
        self,
        lanes: Sequence[Lane],
        starts: Sequence[int],
        counts: Sequence[int],
        cache: KVCache,
    ) -> None:
        """Read `counts` ids of each lane from `starts` on."""
        if not max(counts):
            return
        ids, places = torch.zeros(2, len(lanes), max(counts), dtype=torch.long)
        for row, (lane, start, count) in enumerate(
            zip(lanes, starts, counts, strict=True)
        ):
            part = slice(start, start + count)
            ids[row, :count] = torch.tensor(lane.ids[part])
            places[row, :count] = torch.tensor(lane.positions[part])
        device = cache.lengths.device
        self._model.memorise(ids.to(device), places.to(device), cache)
        cache.trim(torch.tensor(counts, device=device))

    def read(self, ids: Int[Tensor, " batch"]) -> Float[Tensor, "batch vocab"]:
        """Read one id in each lane; logits of what follows it."""
        places = self._place[:, None]
        hidden = self._model.hidden(ids[:, None], places, self._cache)
        # A lane whose answer has ended is still fed, and must not leave the table.
        self._place = self._after.clamp(max=self._model.config.context - 1)
        self._after = self._after + 1
        logits: Tensor = self._head(hidden[:, 0])
        return logits.float()

    def read_ahead(
        self, ids: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vocab"]:
        """Read each lane's next id and guesses behind it; logits of what follows each.

        `keep` says then how many were right.
        """
        behind = torch.arange(ids.shape[1] - 1, device=ids.device)
        places = torch.cat(
            [self._place[:, None], self._after[:, None] + behind], 1
        ).clamp(max=self._model.config.context - 1)
        hidden = self._model.hidden(ids, places, self._cache)
        logits: Tensor = self._head(hidden)
        return logits.float()

    def keep(self, counts: Int[Tensor, " batch"], time: int) -> None:
        """Forget all but the first `counts` of the `time` ids read ahead."""
        self._cache.trim(self._cache.lengths - time + counts)
        last = self._after + counts - 1
        self._place = torch.where(counts > 0, last, self._place)
        self._after = self._after + counts
