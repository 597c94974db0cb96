"""Records on disk -> batches for the model: read, mix, shuffle, choose, rotate, batch.

Grain does the reading order: a batch is a pure function of (seed, its number), so any
number of processes sees the same rows, each its share of every batch, and a stream
resumes from one integer on any other number. What is
ours is the row: one caption and one version of the picture are chosen, the document
becomes ids (`tokens.codec`), spans are rotated (`objective.cm3`).

Two ways to fill rows:

* packed (the paper): documents end to end, cut into rows of context + 1 ids;
* `isolate_documents`: one document a row, padded, so that unrelated documents do not
  see each other. At the shipped size that is worth twice the data (docs/log.md). All
  rows of a batch have as many neighbours, and the fewer rows there are the more they
  have, so that little is padded and batches are of one size.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cm3leon.data.mixture import Selection, interleave
from cm3leon.data.pack import Pack
from cm3leon.data.shards import Record, Shards, TokenSegment
from cm3leon.errors import ConfigError, DataError
from cm3leon.objective.cm3 import (
    CM3Config,
    hidden_segments,
    rotate,
    sample_spans,
    segments,
)
from cm3leon.tokens.codec import Part, assemble, positions
from cm3leon.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """Which records, in which shares, as rows of which shape."""

    shards: str  # folder written by `cm3leon data shards`
    mixture: Mapping[str, float] = field(
        default_factory=dict
    )  # group -> share; {}: all
    rows: int = 48  # per batch of all processes; isolated, one of k neighbours is k + 1
    isolate_documents: bool = False
    position_slot: int = 0  # pictures start at multiples of it; 0: plain positions
    first_alternative: float = 0.0  # extra chance of a segment's first version
    neighbours: tuple[float, ...] = (1.0,)  # shares with 0, 1, 2, …: of batches if
    # isolated, else of documents
    itself: float = 0.0  # chance that a document may be one of its own neighbours
    code_noise: float = 0.0  # a row's image codes are misread with a chance up to this
    threads: int = 1  # that prepare rows

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"rows is {self.rows}, below 1")
        if not self.isolate_documents and self.position_slot:
            raise ConfigError(
                f"position_slot is {self.position_slot} but rows are packed; set "
                "isolate_documents = true or position_slot = 0"
            )
        if any(share < 0 for share in self.mixture.values()):
            raise ConfigError("a share of the mixture is below 0")
        for name in ("itself", "code_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, outside [0, 1]")
        if min(self.neighbours, default=0) < 0 or sum(self.neighbours) <= 0:
            raise ConfigError(
                f"neighbours is {list(self.neighbours)}; give shares of documents with "
                "0, 1, 2, … neighbours, such as [0.2, 0.2, 0.6]"
            )

    def batch_rows(self, neighbours: int = 0) -> int:
        """Rows of a batch whose rows have so many neighbours, if isolated."""
        return max(1, self.rows // (neighbours + 1))

    def check_ranks(self, ranks: int) -> None:
        """Whether so many processes can share every batch.

        Raises:
            ConfigError: they cannot.
        """
        numbers = [k for k, share in enumerate(self.neighbours) if share]
        for k in numbers if self.isolate_documents else [0]:
            if left := self.batch_rows(k) % ranks:
                of = f" of {k} neighbours" if k else ""
                raise ConfigError(
                    f"stream.rows is {self.rows}: a batch{of} has "
                    f"{self.batch_rows(k)} rows, which {ranks} processes cannot share "
                    f"({left} would be left over); take a multiple of {ranks * (k + 1)}"
                )


class Row(NamedTuple):
    """One row before batching: `ids` and their places in the unrotated document."""

    ids: np.ndarray
    positions: np.ndarray
    spans: int
    hidden_captions: int
    captions: int
    neighbours: np.ndarray  # of the document that each id belongs to
    first: int = 0  # ids before this one have no weight


class Batch(NamedTuple):
    """What the loop feeds the model."""

    ids: Int[Tensor, "batch time"]
    positions: Int[Tensor, "batch time"]
    targets: Int[Tensor, "batch time"]
    weights: Float[Tensor, "batch time"]  # 0 on padding
    neighbours: Int[Tensor, "batch time"]  # of the target's document
    spans: float  # mean per row
    hidden_captions: float  # share of captions that were hidden whole

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed."""
        return self._replace(
            ids=change(self.ids),
            positions=change(self.positions),
            targets=change(self.targets),
            weights=change(self.weights),
            neighbours=change(self.neighbours),
        )


@dataclass(frozen=True)
class ChooseDocument:
    """Grain transform: a record -> ids, one version of each segment.

    Of its neighbours as many as `neighbours` draws, any of them in any order
    (Yu et al. 2023, §2.1); fewer if it has not so many. With chance `itself` the
    document, in the same versions, is one of those to draw from: a model that has never
    used its neighbours learns it from this in a few hundred steps (docs/log.md).
    """

    vocabulary: Vocabulary
    first_alternative: float
    neighbours: tuple[float, ...] = (1.0,)
    itself: float = 0.0

    def __call__(self, record: Record, random: np.random.Generator) -> list[int]:
        """The ids of one choice of versions and neighbours."""
        own = [*self._choose(record.segments, random)]
        parts: list[Part] = []
        if len(self.neighbours) > 1:
            shares = np.asarray(self.neighbours) / sum(self.neighbours)
            wanted = int(random.choice(len(shares), p=shares))
            others = record.neighbours
            count = len(others) + (random.random() < self.itself)
            for number in random.permutation(count)[:wanted]:
                last = number == len(others)
                parts += own if last else self._choose(others[number], random)
        return assemble(self.vocabulary, [*parts, *own])

    def _choose(
        self, segments: Iterable[TokenSegment], random: np.random.Generator
    ) -> Iterator[Part]:
        for segment in segments:
            chosen = int(random.integers(len(segment.alternatives)))
            if random.random() < self.first_alternative:
                chosen = 0
            yield segment.kind, segment.alternatives[chosen]


@dataclass(frozen=True)
class RotateRow:
    """Grain transform: ids -> a row, its spans moved to the end (the CM3 objective)."""

    vocabulary: Vocabulary
    objective: CM3Config
    context: int
    slot: int

    def __call__(self, ids: Sequence[int], random: np.random.Generator) -> Row:
        """A row of at most context + 1 ids, of one document."""
        return self.packed(_counted(self.vocabulary, ids), random)

    def packed(
        self, counted: Sequence[Sequence[int]], random: np.random.Generator
    ) -> Row:
        """The same of any ids, each with the number of its document's neighbours."""
        v = self.vocabulary
        limit = self.context + 1
        ids, counts = map(list, zip(*counted[:limit], strict=True))
        boundaries = frozenset((v.break_, v.eos, v.pad))
        spans = sample_spans(ids, boundaries, self.objective, random, len(v.masks))
        places = np.asarray(positions(v, ids, self.slot), dtype=np.int64)
        rotated = rotate(ids, spans, v.masks, v.infills, v.end, limit)
        origins = np.asarray(rotated.origins, dtype=np.int64)
        if self.slot:
            if places[-1] >= self.context:
                raise DataError(
                    f"a document reaches position {places[-1]}, the model reads "
                    f"{self.context}; raise model.context or lower position_slot"
                )
            places = places[origins]
        else:
            places = np.arange(len(rotated.ids), dtype=np.int64)
        captions, hidden = _captions(ids, spans, boundaries, v)
        return Row(
            np.asarray(rotated.ids, dtype=np.int64),
            places,
            len(spans),
            hidden,
            captions,
            np.asarray(counts, dtype=np.int64)[origins],
        )


def _counted(v: Vocabulary, ids: Sequence[int]) -> list[tuple[int, int]]:
    """A document's ids, each with the number of neighbours before its own segments."""
    count = ids.count(v.break_) // 2
    return [(id, count) for id in ids]


def _captions(
    ids: Sequence[int],
    spans: Sequence[range],
    boundaries: frozenset[int],
    v: Vocabulary,
) -> tuple[int, int]:
    """How many whole texts a row has, and how many of them are hidden whole."""
    captions = [s for s in segments(ids, boundaries) if ids[s.start] in v.text]
    hidden = hidden_segments(ids, spans, boundaries)
    return len(captions), sum(ids[s.start] in v.text for s in hidden)


def document_parts(documents: Iterable[Sequence[TokenSegment]]) -> list[Part]:
    """The main versions of documents, one after another."""
    return [
        (segment.kind, segment.alternatives[0])
        for document in documents
        for segment in document
    ]


def plain_row(
    vocabulary: Vocabulary, ids: Sequence[int], slot: int, first: int = 0
) -> Row:
    """A document as it stands, nothing moved; only what comes after `first` counts."""
    places = np.asarray(positions(vocabulary, ids, slot), dtype=np.int64)
    none = np.zeros(len(ids), dtype=np.int64)
    return Row(np.asarray(ids, dtype=np.int64), places, 0, 0, 0, none, first)


def collate(given: Sequence[Row | None], pad: int) -> Batch:
    """Rows of any length, padded on the right to the longest; None is no row."""
    rows = [row for row in given if row is not None]
    longest = max(len(row.ids) for row in rows)
    ids = np.full((len(rows), longest), pad, dtype=np.int64)
    places, neighbours = np.zeros_like(ids), np.zeros_like(ids)
    weights = np.zeros((len(rows), longest), dtype=np.float32)
    for index, row in enumerate(rows):
        length = len(row.ids)
        ids[index, :length] = row.ids
        places[index, :length] = row.positions
        neighbours[index, :length] = row.neighbours
        weights[index, row.first : length] = 1
    captions = sum(row.captions for row in rows)
    return Batch(
        ids=torch.from_numpy(ids[:, :-1].copy()),
        positions=torch.from_numpy(places[:, :-1].copy()),
        targets=torch.from_numpy(ids[:, 1:].copy()),
        weights=torch.from_numpy(weights[:, 1:].copy()),
        neighbours=torch.from_numpy(neighbours[:, 1:].copy()),
        spans=sum(row.spans for row in rows) / len(rows),
        hidden_captions=sum(row.hidden_captions for row in rows) / max(1, captions),
    )


@dataclass(frozen=True)
class ShareOfRanks:
    """Grain transform: of a batch the rows of one process."""

    rank: int
    ranks: int

    def __call__(self, batch: Batch) -> Batch:
        """Every `ranks`-th row."""
        return batch.each(lambda column: column[self.rank :: self.ranks])


@dataclass(frozen=True)
class MisreadCodes:
    """Grain transform: some image codes that the model reads become others.

    In each row with a chance of its own, uniform up to `most`. Targets stay, so the
    model learns to go on well after a code that it should not have drawn, and not to
    lean on chains of codes that it knows by heart.
    """

    vocabulary: Vocabulary
    most: float

    def __call__(self, batch: Batch, random: np.random.Generator) -> Batch:
        """The batch with other `ids`."""
        image = self.vocabulary.image
        ids = batch.ids.numpy()
        chance = random.uniform(0, self.most, (len(ids), 1))
        misread = (random.random(ids.shape) < chance) & (ids >= image.start)
        misread &= ids < image.stop
        others = random.integers(image.start, image.stop, ids.shape)
        return batch._replace(ids=torch.from_numpy(np.where(misread, others, ids)))


class TokenStream:
    """Endless batches; `state` and `restore` make it resume exactly."""

    def __init__(
        self,
        config: StreamConfig,
        objective: CM3Config,
        vocabulary: Vocabulary,
        context: int,
        *,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Open the shards.

        Args:
            config: which records and how rows are filled.
            objective: which spans are moved.
            vocabulary: the layout of ids.
            context: most ids of a row the model reads.
            seed: of every choice.
            rank: this process, from 0.
            ranks: processes that share the stream; each takes every `ranks`-th row of
                every batch.

        Raises:
            ConfigError: they cannot share the rows of a batch.
            DataError: the shards do not fit the vocabulary, or a group has no records.
        """
        config.check_ranks(ranks)
        shards = Shards(Path(config.shards))
        if shards.alphabets.text_size > len(
            vocabulary.text
        ) or shards.alphabets.codebook_size > len(vocabulary.image):
            raise DataError(
                f"{config.shards} has {shards.alphabets.text_size} text ids and "
                f"{shards.alphabets.codebook_size} codes, more than the vocabulary"
            )
        turn = RotateRow(vocabulary, objective, context, config.position_slot)

        def documents(seed: int, shares: tuple[float, ...]) -> Any:
            choose = ChooseDocument(
                vocabulary, config.first_alternative, shares, config.itself
            )
            mixed = _mix(shards, config.mixture, config.shards, seed)
            return mixed.random_map(choose)

        # what is misread is drawn for a whole batch, which is then shared out after it
        first, every = (0, 1) if config.code_noise else (rank, ranks)

        def batched(rows: Any, count: int) -> Any:
            join = functools.partial(collate, pad=vocabulary.pad)
            batches = rows.batch(count, batch_fn=join)
            if config.code_noise:
                noise = MisreadCodes(vocabulary, config.code_noise)
                batches = batches.random_map(noise).map(ShareOfRanks(rank, ranks))
            return batches

        if config.isolate_documents:
            shares = {k: x for k, x in enumerate(config.neighbours) if x}
            parts = []
            for k in shares:
                rows = documents(seed + k, (*[0.0] * k, 1.0)).random_map(turn)
                count = config.batch_rows(k) // every
                parts.append(batched(rows[first::every], count))
            total = sum(shares.values())
            weights = [share / total for share in shares.values()]
            mixed = grain.MapDataset.mix(parts, weights=weights)
            stream = mixed.to_iter_dataset(grain.ReadOptions(config.threads, 4))
        else:
            chosen = documents(seed, config.neighbours)
            read = chosen.map(functools.partial(_counted, vocabulary)).to_iter_dataset()
            packed = Pack(read, context + 1, first, every).seed(seed)
            stream = batched(packed.random_map(turn.packed), config.rows)
        self._iterator = iter(stream)

    def __next__(self) -> Batch:
        batch: Batch = next(self._iterator)
        return batch

    def __iter__(self) -> "TokenStream":
        return self

    def state(self) -> dict[str, Any]:
        """Plain values from which `restore` goes on after the last batch taken."""
        state: dict[str, Any] = self._iterator.get_state()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._iterator.set_state(state)


def _mix(
    shards: Shards, mixture: Mapping[str, float], folder: str, seed: int
) -> "grain.MapDataset[Record]":
    """Records without end: each group shuffled, the groups interleaved by share."""
    groups = shards.groups()
    if not groups:
        raise DataError(f"{folder} holds no records; build the shards again")
    shares = mixture or {name: float(len(numbers)) for name, numbers in groups.items()}
    if missing := sorted(set(shares) - set(groups)):
        raise DataError(
            f"{folder} has no group {missing[0]!r}; it has: {', '.join(groups)}"
        )
    return interleave(
        {name: Selection(shards, groups[name]) for name in shares}, shares, seed
    )
