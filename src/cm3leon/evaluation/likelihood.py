"""What a model thinks of held-out documents, and whether it reads their captions.

* loss: nats per image code and per text id, one document a row, nothing masked;
* caption margin: nats per code given a wrong caption minus those given the right one;
* match: how often a picture's codes are likelier under its own caption than under
  `ways - 1` captions of other pictures.

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
from cm3leon.data.stream import collate, plain_row
from cm3leon.model.transformer import Transformer
from cm3leon.objective.loss import Tally, per_id_loss
from cm3leon.precision import autocast
from cm3leon.randomness import generator
from cm3leon.tokens.codec import assemble
from cm3leon.tokens.vocabulary import Vocabulary

Progress = Callable[[int, int], None]


class HeldOutLoss(NamedTuple):
    """Means over a split."""

    image: float  # nats per code
    first_rows: float  # the same over the first quarter of the codes
    text: float  # nats per text id
    documents: int


@dataclass(frozen=True)
class Reader:
    """A model and what turns records into its rows."""

    model: Transformer
    vocabulary: Vocabulary
    slot: int
    rows: int = 64  # per batch

    def losses(self, documents: Sequence[list[int]]) -> list[tuple[Tensor, ...]]:
        """Per document: nats of each target, and the targets; padding left out."""
        found: list[tuple[Tensor, ...]] = []
        self.model.eval()
        for start in range(0, len(documents), self.rows):
            group = documents[start : start + self.rows]
            rows = [plain_row(self.vocabulary, ids, self.slot) for ids in group]
            batch = collate(rows, self.vocabulary.pad)
            with torch.inference_mode(), autocast():
                logits = self.model(batch.ids, batch.positions)
                losses = per_id_loss(logits, batch.targets)
            for index, ids in enumerate(group):
                length = len(ids) - 1
                found.append((losses[index, :length], batch.targets[index, :length]))
        return found

    def document(self, record: Record, caption: Record | None = None) -> list[int]:
        """A record's main version, under its own caption or that of another."""
        parts = [(segment.kind, segment.alternatives[0]) for segment in record.segments]
        if caption is not None:
            parts[0] = ("text", caption.segments[0].alternatives[0])
        return assemble(self.vocabulary, parts)


def held_out_loss(
    reader: Reader, records: Sequence[Record], on_progress: Progress | None = None
) -> HeldOutLoss:
    """Loss by modality over all records, every id counted once."""
    image = reader.vocabulary.image
    tally, codes, first = Tally(image), [], []
    for start in range(0, len(records), reader.rows):
        group = records[start : start + reader.rows]
        for losses, targets in reader.losses([reader.document(r) for r in group]):
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
    captions = [record.segments[0].alternatives[0] for record in records]
    margins, right = [], 0
    for index, record in enumerate(records):
        random = generator(seed, "match", index)
        others = [
            int(other)
            for other in random.permutation(len(records))
            if captions[int(other)] != captions[index]
        ][: ways - 1]
        documents = [reader.document(record)]
        documents += [reader.document(record, records[other]) for other in others]
        nats = []
        for losses, targets in reader.losses(documents):
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
