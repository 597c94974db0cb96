"""Lanes: conditionings read side by side in one batch.

    neighbours   <eos> T1 <break> I1 <break>              read once for the lanes below
    conditional      a red apple <break>     c1 c2 …
    unconditional    <mask:0> <break>        c1 c2 …      fed the same drawn ids

The lanes of one request stand one after the other. What they begin with alike, its
neighbours, is the prefix of their cache, and requests with the same one read it once.
Requests join and leave at any time; those that stay are one batch without gaps.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.errors import RequestError
from cm3leon.model.cache import KVCache
from cm3leon.model.exact import rounded
from cm3leon.model.language_model import LanguageModel

WORTH_SHARING = 16  # ids; reading fewer twice costs less than another pass
WORTH_COPYING = 8 << 20  # bytes; attending to so many more costs less than in two parts
AT_ONCE = 512  # ids of prefixes in one pass: more fall out of the processor's caches


@dataclass(frozen=True)
class Lane:
    """Ids before the first drawn one, and the place of each in the document."""

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    next_position: int  # of the first drawn id; the others count on


def _alike(requests: Sequence[Sequence[Lane]]) -> list[int]:
    """Ids that all lanes of each request begin with, 0 if not worth sharing."""

    def alike(lanes: Sequence[Lane]) -> int:
        most = min(len(lane.ids) for lane in lanes) - 1
        for count in range(most):
            if len({(lane.ids[count], lane.positions[count]) for lane in lanes}) > 1:
                return count
        return most

    counts = [alike(lanes) if len(lanes) > 1 else 0 for lanes in requests]
    return [count if count >= WORTH_SHARING else 0 for count in counts]


@dataclass(frozen=True)
class Room:
    """What a batch can hold, planned before anything is read."""

    requests: int
    lanes: int  # of each request
    own: int  # ids of each lane behind its prefix
    prefix: int  # ids that the lanes of a request begin with; 0: no room for any

    @classmethod
    def of(
        cls, model: LanguageModel, requests: Sequence[Sequence[Lane]], more: int
    ) -> "Room":
        """Room for these requests, `more` ids read after the prompts.

        Prefixes that are short and few are copied into each lane instead, but not where
        a request would differ by it from what it is in a larger batch.
        """
        counts = _alike(requests)
        prefix = rounded(max(counts))
        copies = len(requests) * (len(requests[0]) - 1)
        few = copies * prefix * model.cache_bytes <= WORTH_COPYING
        if few and not model.exact:
            counts, prefix = [0] * len(requests), 0
        own = max(
            len(lane.ids) - 1 - count
            for lanes, count in zip(requests, counts, strict=True)
            for lane in lanes
        )
        own = rounded(own + more) if model.exact else own + more
        return cls(len(requests), len(requests[0]), own, prefix)

    def check(self, model: LanguageModel) -> None:
        """Whether its keys and values fit the memory that is free.

        Raises:
            RequestError: they do not; the message says how many requests would.
        """
        each = (self.lanes * self.own + self.prefix) * model.cache_bytes
        device = model.embedding.weight.device
        free: int = (
            torch.cuda.mem_get_info(device)[0]
            if device.type == "cuda"
            else psutil.virtual_memory().available
        )
        if self.requests * each <= free:
            return
        fit = free // each
        way_out = f"ask for {fit} at once" if fit else "take a smaller model"
        raise RequestError(
            f"drawing {self.requests} at once takes {self.requests * each / 1e9:.1f} "
            f"GB for keys and values, {free / 1e9:.1f} GB are free; {way_out}"
        )


class Lanes:
    """The lanes of several requests and the keys and values of what they have read."""

    def __init__(
        self, model: LanguageModel, room: Room, head: Int[Tensor, " vocab"]
    ) -> None:
        """Lanes of nobody yet.

        Args:
            model: what reads.
            room: how much it can come to.
            head: the ids to score, in this order.

        Raises:
            RequestError: the room does not fit the memory.
        """
        room.check(model)
        device = model.embedding.weight.device
        self.count = 0  # requests
        self.last = torch.zeros(0, dtype=torch.long, device=device)  # id to read next
        self._place = self._after = self.last  # of that id, and of the one behind it
        self._model = model
        self._room = room
        self._head = model.scorer(head)
        self._own = model.cache(room.requests * room.lanes, room.own)
        self._prefixes: KVCache | None = None
        if room.prefix:
            self._prefixes = model.cache(room.requests, room.prefix)
        self._cache: KVCache | None = None  # of all lanes there are

    def join(self, requests: Sequence[Sequence[Lane]]) -> None:
        """Read all of each new lane but its last id.

        Args:
            requests: the lanes of each, as many as the room has; of any length from 1.
        """
        lanes = [lane for request in requests for lane in request]
        each, count = self._room.lanes, self.count + len(requests)
        assert len(lanes) == each * len(requests), "requests of other lanes"
        assert count <= self._room.requests, "more requests than planned"
        cache = self._own.part(slice(self.count * each, count * each))
        begun, firsts = _alike(requests), [request[0] for request in requests]
        if self._prefixes:
            cache.prefix = self._prefixes.part(slice(self.count, count))
            if max(begun):
                self._read_prefixes(firsts, begun, cache.prefix)
        elif max(begun):
            self._copy_prefixes(firsts, begun, cache)
        starts = [start for start in begun for _ in range(each)]
        rests = [
            len(lane.ids) - 1 - start for lane, start in zip(lanes, starts, strict=True)
        ]
        kinds = [rests[kind::each] for kind in range(each)]
        if max(map(max, kinds)) - min(map(max, kinds)) < WORTH_SHARING:
            self._memorise(lanes, starts, rests, cache)
        else:  # those without neighbours are not padded to those with
            for kind in range(each):
                rows = slice(kind, None, each)
                part = cache.part(rows)
                part.prefix = cache.prefix
                self._memorise(lanes[rows], starts[rows], rests[rows], part)

        def added(old: Tensor, new: Sequence[int]) -> Tensor:
            return torch.cat([old, torch.tensor(new, device=old.device)])

        self._place = added(self._place, [lane.positions[-1] for lane in lanes])
        self._after = added(self._after, [lane.next_position for lane in lanes])
        self.last = added(self.last, [lane.ids[-1] for lane in lanes])
        self._become(count)

    def leave(self, gone: Collection[int]) -> list[int]:
        """Free the places of some requests.

        The last that stays takes the place of one that goes, so there are no gaps.

        Returns:
            Where those that stay have been, in the order they are in now.
        """
        each = self._room.lanes
        stay = list(range(self.count))
        for place in sorted(gone, reverse=True):
            last = len(stay) - 1
            if place < last:
                for lane in range(each):
                    self._own.copy(last * each + lane, place * each + lane)
                if self._prefixes:
                    self._prefixes.copy(last, place)
            stay[place] = stay[last]
            del stay[last]
        rows = [place * each + lane for place in stay for lane in range(each)]
        self._own.lengths[len(rows) :] = 0
        if self._prefixes:
            self._prefixes.lengths[len(stay) :] = 0
        self._place, self._after, self.last = (
            tensor[rows] for tensor in (self._place, self._after, self.last)
        )
        self._become(len(stay))
        return stay

    def _become(self, count: int) -> None:
        """Be the first `count` requests."""
        self.count, self._cache = count, None
        if not count:
            return
        self._cache = self._own.part(slice(count * self._room.lanes))
        if self._prefixes:
            self._cache.prefix = self._prefixes.part(slice(count))

    def _read_prefixes(
        self, lanes: Sequence[Lane], counts: Sequence[int], cache: KVCache
    ) -> None:
        """Read the first ids of lanes, those that come several times once."""
        found: dict[tuple[tuple[int, ...], ...], int] = {}
        rows = [
            found.setdefault((lane.ids[:count], lane.positions[:count]), len(found))
            for lane, count in zip(lanes, counts, strict=True)
        ]
        kept = [rows.index(row) for row in range(len(found))]
        each = max(1, AT_ONCE // max(counts))
        for start in range(0, len(kept), each):
            some = kept[start : start + each]
            part = cache.part(slice(start, start + len(some)))
            firsts, lengths = [lanes[i] for i in some], [counts[i] for i in some]
            self._memorise(firsts, [0] * len(some), lengths, part)
        for target, source in reversed(list(enumerate(rows))):
            if source < target:  # a row further down was the source of later ones only
                cache.copy(source, target)
        cache.measure()

    def _copy_prefixes(
        self, lanes: Sequence[Lane], counts: Sequence[int], cache: KVCache
    ) -> None:
        """Read what the lanes of each request begin with, into all of them."""
        each = self._room.lanes
        for number, (lane, count) in enumerate(zip(lanes, counts, strict=True)):
            first = number * each
            part = cache.part(slice(first, first + 1))
            self._memorise([lane], [0], [count], part)
            for other in range(first + 1, first + each):
                cache.copy(first, other)
        cache.measure()

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
        longest = max(2, *counts)  # never a row alone, whose sums are rounded otherwise
        ids, places = torch.zeros(2, len(lanes), longest, dtype=torch.long)
        for row, (lane, start, count) in enumerate(
            zip(lanes, starts, counts, strict=True)
        ):
            part = slice(start, start + count)
            ids[row, :count] = torch.tensor(lane.ids[part])
            places[row, :count] = torch.tensor(lane.positions[part])
        device, before = cache.lengths.device, cache.lengths.clone()
        self._model.memorise(ids.to(device), places.to(device), cache)
        cache.trim(before + torch.tensor(counts, device=device))

    def read(self, ids: Int[Tensor, " batch"]) -> Float[Tensor, "batch vocab"]:
        """Read one id in each lane; logits of what follows it."""
        hidden = self._model.hidden(ids[:, None], self._place[:, None], self._cache)
        self._place, self._after = self._after, self._after + 1
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
        assert self._cache is not None, "nobody has joined"
        self._cache.trim(self._cache.lengths - time + counts)
        last = self._after + counts - 1
        self._place = torch.where(counts > 0, last, self._place)
        self._after = self._after + counts
