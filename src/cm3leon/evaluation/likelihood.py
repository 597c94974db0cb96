"""What a model thinks of held-out documents, and whether it reads their captions.

* loss: nats per image code and per text id, one document a row, nothing masked;
* caption margin: nats per code given a wrong caption minus those given the right one;
* match: how often a picture's codes are likelier under its own caption than under
  `ways - 1` captions of other pictures.

With retrieval a caption comes with the neighbours it finds, a wrong one with its own.

A low loss alone does not mean that pictures follow their captions: a model can learn
which code follows which and ignore the words. The margin and the match tell.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cm3leon.data.shards import Record, Shards
from cm3leon.data.stream import Row, collate, plain_row
from cm3leon.model.transformer import Transformer
from cm3leon.objective.loss import Tally, per_id_loss
from cm3leon.precision import autocast
from cm3leon.randomness import generator
from cm3leon.retrieval.retriever import Neighbour, Retriever
from cm3leon.tokens.codec import Codec, Part, assemble
from cm3leon.tokens.vocabulary import Vocabulary

Progress = Callable[[int, int], None]


class HeldOutLoss(NamedTuple):
    """Means over a split."""

    image: float  # nats per code
    first_rows: float  # the same over the first quarter of the codes
    text: float  # nats per text id
    documents: int


class Retrieved:
    """The neighbours that captions find, those of records asked for at once.

    Args:
        records: whose captions may be asked for.
        retriever: finds them as it does for a prompt: by the words alone, all of them.
        codec: text ids <-> words.
        count: of neighbours.
    """

    def __init__(
        self, records: Sequence[Record], retriever: Retriever, codec: Codec, count: int
    ) -> None:
        self.count = count
        self._codec = codec
        keys: dict[tuple[int, ...], set[str]] = {}
        for record in records:
            keys.setdefault(_caption(record), set()).add(record.key)
        tokenizer = codec.text_tokenizer
        queries = retriever.encoder.texts([tokenizer.decode(ids) for ids in keys])
        own = list(keys.values())
        # one more than asked: a wrong caption may find the picture itself
        found = retriever.by_vector(queries.numpy(), count + 1, own)
        self._found = dict(zip(keys, found, strict=True))

    def __call__(self, caption: Record, picture: Record) -> list[Part]:
        """What stands before a picture under a caption; never the picture itself."""
        others = self._found[_caption(caption)]
        kept = [one for one in others if one.document.key != picture.key]
        return [part for one in kept[: self.count] for part in self._parts(one)]

    def _parts(self, neighbour: Neighbour) -> list[Part]:
        document, tokenizer = neighbour.document, self._codec.text_tokenizer
        return [
            ("text", tokenizer.encode(tokenizer.cut(document.text))),
            ("image", document.codes),
        ]


@dataclass(frozen=True)
class Reader:
    """A model and what turns records into its rows."""

    model: Transformer
    vocabulary: Vocabulary
    slot: int
    rows: int = 64  # per batch
    neighbours: Retrieved | None = None  # by default there are none

    def losses(self, rows: Sequence[Row]) -> list[tuple[Tensor, ...]]:
        """Per document: nats of each target, and the targets.

        Padding and what stands before the document are left out.
        """
        found: list[tuple[Tensor, ...]] = []
        self.model.eval()
        for start in range(0, len(rows), self.rows):
            group = rows[start : start + self.rows]
            batch = collate(group, self.vocabulary.pad)
            with torch.inference_mode(), autocast():
                logits = self.model(batch.ids, batch.positions)
                losses = per_id_loss(logits, batch.targets)
            for index in range(len(group)):
                own = batch.weights[index] > 0
                found.append((losses[index, own], batch.targets[index, own]))
        return found

    def row(self, record: Record, caption: Record | None = None) -> Row:
        """A record's main version, under its own caption or that of another."""
        caption = caption or record
        before = self.neighbours(caption, record) if self.neighbours else []
        parts = [(segment.kind, segment.alternatives[0]) for segment in record.segments]
        parts[0] = ("text", _caption(caption))
        ids = assemble(self.vocabulary, [*before, *parts])
        first = len(assemble(self.vocabulary, before)) if before else 0
        return plain_row(self.vocabulary, ids, self.slot, first)


def _caption(record: Record) -> tuple[int, ...]:
    return tuple(record.segments[0].alternatives[0])


def held_out_loss(
    reader: Reader, records: Sequence[Record], on_progress: Progress | None = None
) -> HeldOutLoss:
    """Loss by modality over all records, every id counted once."""
    image = reader.vocabulary.image
    tally, codes, first = Tally(image), [], []
    for start in range(0, len(records), reader.rows):
        group = records[start : start + reader.rows]
        for losses, targets in reader.losses([reader.row(r) for r in group]):
            ones = torch.ones_like(losses)[None]
            tally.add(losses[None], targets[None], ones)
            drawn = losses[(targets >= image.start) & (targets < image.stop)]
            codes.append(drawn.double().mean().item())
            first.append(drawn[: len(drawn) // 4].double().mean().item())
        if on_progress:
            on_progress(min(start + reader.rows, len(records)), len(records))
    return HeldOutLoss(
        float(np.mean(codes)), float(np.mean(first)), tally.text, len(records)
    )


class Match(NamedTuple):
    """How far captions decide."""

    margin: float  # nats per code
    right: float  # share of pictures matched to their own caption
    ways: int
    pictures: int


def caption_match(
    reader: Reader,
    records: Sequence[Record],
    *,
    ways: int = 16,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Match:
    """Margin and match over records, each against captions of `ways - 1` others.

    Args:
        reader: the model.
        records: pictures of one split; wrong captions come from the same split and
            differ from the right one.
        ways: captions compared per picture.
        seed: chooses the wrong captions.
        on_progress: called with pictures done and pictures in all.
    """
    image = reader.vocabulary.image
    captions = [_caption(record) for record in records]
    margins, right = [], 0
    for index, record in enumerate(records):
        random = generator(seed, "match", index)
        others = [
            int(other)
            for other in random.permutation(len(records))
            if captions[int(other)] != captions[index]
        ][: ways - 1]
        rows = [reader.row(record)]
        rows += [reader.row(record, records[other]) for other in others]
        nats = []
        for losses, targets in reader.losses(rows):
            drawn = losses[(targets >= image.start) & (targets < image.stop)]
            nats.append(drawn.double().mean().item())
        margins.append(float(np.mean(nats[1:])) - nats[0])
        right += nats[0] < min(nats[1:])
        if on_progress:
            on_progress(index + 1, len(records))
    return Match(float(np.mean(margins)), right / len(records), ways, len(records))


def unigram_entropy(shards: Shards) -> float:
    """Entropy, in nats, of the codes of a split's pictures: what no context leaves."""
    counts = np.zeros(shards.alphabets.codebook_size)
    for index in range(len(shards)):
        for segment in shards[index].segments:
            if segment.kind == "image":
                np.add.at(counts, np.asarray(segment.alternatives[0]), 1)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def perplexity(nats: float) -> float:
    """E to the nats.

    >>> perplexity(0.0)
    1.0
    """
    return math.exp(nats)
