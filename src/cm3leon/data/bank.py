"""Captioned pictures -> a memory bank; restartable, and divisible among machines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from jaxtyping import Float32

from cm3leon.data.picture_report import Problem, Report
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.encoder import BiEncoder, document_vectors
from cm3leon.retrieval.manifest import BankConfig
from cm3leon.retrieval.memory import BankDocument, BankWriter
from cm3leon.workers import Workers, here

BATCH = 32  # pictures in memory at once; a user's may have many megapixels


def bank_config(encoder: BiEncoder, image_tokenizer: ImageTokenizer) -> BankConfig:
    """What a bank's vectors and codes mean when these two make them."""
    return BankConfig(
        width=encoder.width,
        encoder=encoder.fingerprint,
        image_tokenizer=image_tokenizer.fingerprint,
        codes_per_image=image_tokenizer.codes_per_image,
        codebook_size=image_tokenizer.codebook_size,
    )


@dataclass(frozen=True)
class Embedding:
    """Documents and vectors of some pictures, by their numbers; on any machine."""

    pictures: Pictures
    encoder: BiEncoder
    image_tokenizer: ImageTokenizer

    def __call__(
        self, numbers: Sequence[int]
    ) -> tuple[list[BankDocument], Float32[np.ndarray, "doc width"], list[Problem]]:
        """In the order of the numbers, and which pictures could not be used."""
        documents: list[BankDocument] = []
        problems: list[Problem] = []
        vectors = [np.zeros((0, self.encoder.width), dtype=np.float32)]
        for start in range(0, len(numbers), BATCH):
            group: list[Picture] = []
            for one in self.pictures.some(numbers[start : start + BATCH]):
                if isinstance(one, Problem):
                    problems.append(one)
                else:
                    group.append(one)
            images = [picture.image for picture in group]
            made = document_vectors(
                self.encoder.texts([picture.caption for picture in group]),
                self.encoder.images(images),
            )
            vectors.append(made.numpy())
            codes = self.image_tokenizer.encode(images).tolist()
            documents += map(_document, group, codes)
        return documents, np.concatenate(vectors), problems


def fill(
    writer: BankWriter,
    pictures: Pictures,
    encoder: BiEncoder,
    image_tokenizer: ImageTokenizer,
    *,
    part: int = 0,
    parts: int = 1,
    size: int = 2048,
    workers: Workers = here,
    on_progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Add the pictures that a bank does not hold yet, by their main captions.

    Args:
        writer: of a bank whose config is `bank_config` of the next two.
        pictures: a collection; damaged pictures are left out.
        encoder: documents -> vectors.
        image_tokenizer: pixels -> codes.
        part: of the collection that this process adds, from 0.
        parts: into how many it is divided; each goes into a bank of its own.
        size: pictures to a shard of the bank.
        workers: who embeds the pictures; this process alone writes.
        on_progress: called with pictures done and pictures to do, shard by shard.

    Returns:
        How many documents were added, and which pictures could not be used.
    """
    names = enumerate(islice(pictures.ids(), part, None, parts))
    shards: list[list[int]] = []
    for _, group in groupby(names, lambda one: one[0] // size):
        # by place, not by what is missing: a build that goes on makes the same shards
        todo = [part + at * parts for at, key in group if key not in writer.keys]
        if todo:
            shards.append(todo)
    added = done = 0
    problems = list(pictures.report.problems)
    embedded = workers(Embedding(pictures, encoder, image_tokenizer), shards)
    for shard, (documents, vectors, more) in zip(shards, embedded, strict=True):
        added += writer.add(documents, vectors)
        problems += more
        done += len(shard)
        if on_progress:
            on_progress(done, sum(map(len, shards)))
    return Report(good=added, problems=problems)


def _document(picture: Picture, codes: list[int]) -> BankDocument:
    about = picture.metadata
    return BankDocument(
        key=picture.id,
        text=picture.caption,
        codes=tuple(codes),
        source=str(about.get("source") or ""),
        licence=str(about.get("licence") or about.get("license") or ""),
        author=str(about.get("author") or ""),
    )
