"""The causally masked objective (CM3) on rows of ids. Yu et al. 2023, §2.2.

    row      a b c d e f
    spans    [b c] [e]
    rotated  a <mask:0> d <mask:1> f  <infill:0> b c <end> <infill:1> e <end>

Next-id prediction on the rotated row teaches both to go on and to fill a hole. Spans
stay inside one segment: the ids between two boundaries (`<break>`, `<eos>`, `<pad>`),
so no image ever has to be started from its middle because its caption is hidden too.

Everything here is a function of lists of ints and a numpy generator.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import floor
from typing import Literal, NamedTuple

import numpy as np

from cm3leon.errors import ConfigError, DataError

GROWTH = 3  # ids a rotated row gains per span: mask, infill, end


@dataclass(frozen=True, kw_only=True)
class CM3Config:
    """How many spans a row loses, and where.

    With spans drawn uniformly almost none hides a caption (about 1 in 10,000 at 9 ids
    beside 1,024 codes), so that `<mask>` would never stand for a text and neither
    guidance nor captioning would be learned: `whole_segment_share` must be above 0 for
    these.
    """

    mode: Literal["poisson", "fixed", "none"] = "poisson"
    mean_spans: float = 1.0  # of the Poisson draw; in mode "fixed" the number itself
    whole_segment_share: float = 0.3  # probability that a row hides whole segments

    def __post_init__(self) -> None:
        if self.mode not in ("poisson", "fixed", "none"):
            raise ConfigError(
                f"mode is {self.mode!r}; it must be 'poisson', 'fixed' or 'none'"
            )
        # Above about 1e18 numpy's Poisson draw fails; no row has a thousand segments.
        if not 0 <= self.mean_spans <= 1000:
            raise ConfigError(f"mean_spans is {self.mean_spans}, outside [0, 1000]")
        if self.mode == "fixed" and self.mean_spans != int(self.mean_spans):
            raise ConfigError(
                f"mean_spans is {self.mean_spans}; mode 'fixed' needs a whole number"
            )
        if not 0 <= self.whole_segment_share <= 1:
            raise ConfigError(
                f"whole_segment_share is {self.whole_segment_share}, outside [0, 1]"
            )


class Rotated(NamedTuple):
    """A rotated row, and where each of its ids comes from."""

    ids: list[int]
    origins: list[int]
    """Index in the row before: of itself; for a mask and an infill the first id of
    its span, for an end the last."""


def segments(ids: Sequence[int], boundaries: Collection[int]) -> list[range]:
    """Longest runs without a boundary id, in order; index 0 belongs to none.

    >>> segments([2, 10, 11, 9, 20, 21, 2], boundaries={2, 9})
    [range(1, 3), range(4, 6)]
    """
    edges = [0, *(i for i, id in enumerate(ids) if i and id in boundaries), len(ids)]
    return [range(a + 1, b) for a, b in pairwise(edges) if b - a > 1]


def sample_spans(
    ids: Sequence[int],
    boundaries: Collection[int],
    config: CM3Config,
    random: np.random.Generator,
    most: int,
) -> list[range]:
    """Disjoint spans to move, in order of position; often none.

    Args:
        ids: one row.
        boundaries: ids no span may hold (`<break>`, `<eos>`, `<pad>`).
        config: how many, and where.
        random: the only source of chance.
        most: spans at most, the number of masks there are.
    """
    if config.mode == "none":
        return []
    return place_spans(segments(ids, boundaries), len(ids), config, random, most)


def place_spans(
    places: Sequence[range],
    length: int,
    config: CM3Config,
    random: np.random.Generator,
    most: int,
) -> list[range]:
    """`sample_spans` for a row of `length` ids whose segments are known."""
    if config.mode == "none" or not places:
        return []
    fixed = config.mode == "fixed"
    wanted = int(config.mean_spans if fixed else random.poisson(config.mean_spans))
    count = min(wanted, most)
    if count < 1:
        return []
    if random.random() < config.whole_segment_share:
        # One segment stays where there are several: an empty row teaches nothing.
        count = min(count, max(1, len(places) - 1))
        chosen = random.choice(len(places), size=count, replace=False)
        return [places[i] for i in sorted(chosen.tolist())]
    # One try for one span, count^2 tries for more, as in the authors' code.
    kept: list[range] = []
    for low, high in np.sort(random.random((count * count, 2)), axis=1).tolist():
        drawn = range(max(1, floor(low * length)), floor(high * length + 0.5))
        span = clip(drawn, places)
        if span and all(span.stop <= k.start or k.stop <= span.start for k in kept):
            kept.append(span)
            if len(kept) == count:
                break
    return sorted(kept, key=lambda span: span.start)


def clip(span: range, places: Iterable[range]) -> range | None:
    """The part of `span` in the segment it overlaps most; `None` if it meets none.

    >>> clip(range(2, 9), [range(1, 4), range(5, 12)])
    range(5, 9)
    """
    best = None
    for place in places:
        start, stop = max(span.start, place.start), min(span.stop, place.stop)
        if stop - start > (len(best) if best else 0):
            best = range(start, stop)
    return best


def hidden_segments(
    ids: Sequence[int], spans: Collection[range], boundaries: Collection[int]
) -> list[range]:
    """Segments of the row that a span hides whole: none of their ids stays.

    The first id of one tells what was hidden: a text id means a caption. The rate of
    hidden captions is worth a curve; at 0 the model learns no guidance.
    """
    taken = set(spans)
    return [s for s in segments(ids, boundaries) if s in taken] if taken else []


def rotate(
    ids: Sequence[int],
    spans: Sequence[range],
    masks: Sequence[int],
    infills: Sequence[int],
    end: int,
    limit: int | None = None,
) -> Rotated:
    """Move each span to the end of the row and leave a mask in its place.

    The row grows by 3 ids per span. Where it would be longer than `limit`, ids are cut
    from the tail of the part that does not move; masks and moved spans stay whole. If
    that part is too short to give them up, the last spans are left where they are.

    Args:
        ids: one row.
        spans: disjoint, not empty, in order of position; without index 0.
        masks: ids that stand in the holes; span i leaves `masks[i]`.
        infills: ids that open the moved spans; equal to `masks` in the authors' layout.
        end: id that closes a moved span.
        limit: longest result; `None` cuts nothing.

    >>> rotate([1, 2, 3, 4, 5], [range(2, 4)], masks=[8], infills=[9], end=7).ids
    [1, 2, 8, 5, 9, 3, 4, 7]
    >>> rotate([1, 2, 3, 4, 5], [range(1, 2)], [8], [9], end=7, limit=6).ids
    [1, 8, 3, 9, 2, 7]
    """
    assert len(spans) <= min(len(masks), len(infills)), "more spans than masks"
    spans = list(spans)
    cut = 0 if limit is None else max(0, len(ids) + GROWTH * len(spans) - limit)
    # Index 0 stays in any case: it is what the first prediction is made from.
    while spans and cut >= len(ids) - sum(map(len, spans)):
        spans.pop()
        cut = max(0, cut - GROWTH)
    origins: list[int] = []
    row: list[int] = []
    tail = len(ids)  # unmoved ids from here on are cut
    for span in reversed(spans):
        if tail - cut >= span.stop:
            break
        cut -= max(0, tail - span.stop)
        tail = span.start
    tail -= cut
    done = 0
    for mask, span in zip(masks, spans, strict=False):
        stop = min(span.start, tail)
        if done < stop:
            row.extend(ids[done:stop])
            origins.extend(range(done, stop))
        row.append(mask)
        origins.append(span.start)
        done = span.stop
    if done < tail:
        row.extend(ids[done:tail])
        origins.extend(range(done, tail))
    for infill, span in zip(infills, spans, strict=False):
        row.append(infill)
        row.extend(ids[span.start : span.stop])
        row.append(end)
        origins.append(span.start)
        origins.extend(span)
        origins.append(span.stop - 1)
    return Rotated(row, origins)


def moved_start(
    ids: Sequence[int], masks: Sequence[int], infills: Sequence[int]
) -> int:
    """Index of the first infill, where the moved spans begin; `len(ids)` if none does.

    Where a mask and its infill are one id, as in the authors' layout, the first is the
    mask and the second the infill.
    """
    hole_ids, open_ids = frozenset(masks), frozenset(infills)
    seen: set[int] = set()
    for index, id in enumerate(ids):
        if id in open_ids and (id in seen or id not in hole_ids):
            return index
        if id in hole_ids:
            seen.add(id)
    return len(ids)


def restore(
    ids: Sequence[int], masks: Sequence[int], infills: Sequence[int], end: int
) -> list[int]:
    """The inverse of `rotate`, but for the ids it cut.

    A last span that is not closed reaches to the end of the row; a mask whose span is
    missing stays.

    Raises:
        DataError: a moved span has no mask, or ids follow the moved spans.

    >>> restore([1, 2, 8, 5, 9, 3, 4, 7], masks=[8], infills=[9], end=7)
    [1, 2, 3, 4, 5]
    """
    ids = list(ids)
    start = at = moved_start(ids, masks, infills)
    holes = dict(zip(infills, masks, strict=True))
    moved: dict[int, list[int]] = {}
    while at < len(ids):
        mask = holes.get(ids[at])
        if mask is None:
            raise DataError(f"id {ids[at]} at {at} follows <end> and opens no span")
        stop = ids.index(end, at) if end in ids[at:] else len(ids)
        if mask in moved:
            raise DataError(f"id {ids[at]} at {at} opens the same span twice")
        moved[mask] = ids[at + 1 : stop]
        at = stop + 1
    restored: list[int] = []
    for id in ids[:start]:
        if id in moved:
            restored.extend(moved.pop(id))
        else:
            restored.append(id)
    if moved:
        raise DataError(f"span of mask {min(moved)} has no mask in the row")
    return restored
