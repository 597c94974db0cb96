"""Captioned pictures -> a memory bank; restartable, and divisible among machines."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import numpy as np
from jaxtyping import Float32

from cm3leon.data.picture_report import Problem
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.errors import DataError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.encoder import BiEncoder, document_vectors
from cm3leon.retrieval.manifest import BankConfig
from cm3leon.retrieval.memory import BankDocument, BankWriter
from cm3leon.workers import Workers, here

BATCH = 32  # pictures in memory at once; a user's may have many megapixels
ALIKE = 0.9  # of its codes are a picture's on any processor


def bank_config(encoder: BiEncoder, image_tokenizer: ImageTokenizer) -> BankConfig:
    """What a bank's vectors and codes mean when these two make them."""
    return BankConfig(
        width=encoder.width,
        encoder=encoder.fingerprint,
        image_tokenizer=image_tokenizer.fingerprint,
        codes_per_image=image_tokenizer.codes_per_image,
        codebook_size=image_tokenizer.codebook_size,
    )


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What became of the pictures of a collection."""

    added: int
    there: int  # already, with the same codes and caption
    problems: Sequence[Problem] = field(default_factory=list)  # those of no use


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


@dataclass(frozen=True)
class Encoding:
    """Keys and codes of some pictures that can be used; on any machine."""

    pictures: Pictures
    image_tokenizer: ImageTokenizer

    def __call__(self, numbers: Sequence[int]) -> list[tuple[str, list[int]]]:
        """In the order of the numbers."""
        some = self.pictures.some(numbers)
        group = [one for one in some if isinstance(one, Picture)]
        codes = self.image_tokenizer.encode([one.image for one in group]).tolist()
        return [(one.id, row) for one, row in zip(group, codes, strict=True)]


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
) -> Filled:
    """Add the pictures that a bank does not hold yet, by their main captions.

    A picture whose key the bank knows must be the one it holds. To a bank that was
    finished all of these are encoded and compared; where a build goes on, their
    captions are, and the first pictures.

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
        How many documents were added and how many were there, and which pictures could
        not be used.

    Raises:
        DataError: the bank has the key of one with another picture or caption; nothing
            was added.
    """
    ids = islice(pictures.ids(), part, None, parts)
    named = [(part + at * parts, key) for at, key in enumerate(ids)]
    there = {number: key for number, key in named if key in writer.keys}
    shards: list[list[int]] = []
    for _, group in groupby(enumerate(named), lambda one: one[0] // size):
        # by place, not by what is missing: a build that goes on makes the same shards
        todo = [number for _, (number, _) in group if number not in there]
        if todo:
            shards.append(todo)
    compared = list(there) if writer.complete else list(there)[:BATCH]
    wanted = len(compared) + sum(map(len, shards))
    added = done = 0
    _check_captions(writer, pictures, there)
    for count in _check_codes(writer, pictures, compared, image_tokenizer, workers):
        done += count
        if on_progress:
            on_progress(done, wanted)
    problems = list(pictures.report.problems)
    embedded = workers(Embedding(pictures, encoder, image_tokenizer), shards)
    for shard, (documents, vectors, more) in zip(shards, embedded, strict=True):
        added += writer.add(documents, vectors)
        problems += more
        done += len(shard)
        if on_progress:
            on_progress(done, wanted)
    return Filled(added=added, there=len(there), problems=problems)


def _check_captions(
    writer: BankWriter, pictures: Pictures, there: Mapping[int, str]
) -> None:
    """Whether pictures, by their numbers, have the captions the bank has of them."""
    document = writer.lookup()
    captions = pictures.captions(list(there))
    for key, some in zip(there.values(), captions, strict=True):
        if document(key).text not in some:
            raise _other(writer, key, "caption")


def _check_codes(
    writer: BankWriter,
    pictures: Pictures,
    numbers: Sequence[int],
    image_tokenizer: ImageTokenizer,
    workers: Workers,
) -> Iterator[int]:
    """Whether they are the pictures the bank has of them; how many more are, so far."""
    document = writer.lookup()
    tasks = [numbers[at : at + BATCH] for at in range(0, len(numbers), BATCH)]
    encoded = workers(Encoding(pictures, image_tokenizer), tasks)
    for task, found in zip(tasks, encoded, strict=True):
        for key, codes in found:
            if np.equal(document(key).codes, codes).mean() < ALIKE:
                raise _other(writer, key, "picture")
        yield len(task)


def _other(writer: BankWriter, key: str, what: str) -> DataError:
    return DataError(
        f"{writer.folder} holds {key!r} with another {what}; give the new file another "
        "name, or take the old one out with cm3leon memory remove; nothing was added"
    )


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
