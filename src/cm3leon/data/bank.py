"""Captioned pictures -> a memory bank; restartable, and divisible among machines."""

from collections.abc import Callable

import numpy as np

from cm3leon.data.pictures import Picture, Pictures
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.encoder import BiEncoder, document_vectors
from cm3leon.retrieval.manifest import BankConfig
from cm3leon.retrieval.memory import BankDocument, BankWriter

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


def fill(
    writer: BankWriter,
    pictures: Pictures,
    encoder: BiEncoder,
    image_tokenizer: ImageTokenizer,
    *,
    part: int = 0,
    parts: int = 1,
    size: int = 2048,
    on_progress: Callable[[int, int], object] | None = None,
) -> int:
    """Add the pictures that a bank does not hold yet, by their main captions.

    Args:
        writer: of a bank whose config is `bank_config` of the next two.
        pictures: a collection, scanned before if some may be damaged.
        encoder: documents -> vectors.
        image_tokenizer: pixels -> codes.
        part: of the collection that this process adds, from 0.
        parts: into how many it is divided; each goes into a bank of its own.
        size: documents per shard of the bank.
        on_progress: called with pictures done and pictures to do.

    Returns:
        How many documents were added.
    """
    numbers = [
        number
        for number, key in enumerate(pictures.ids())
        if number % parts == part and key not in writer.keys
    ]
    added = 0
    for start in range(0, len(numbers), size):
        shard = numbers[start : start + size]
        documents: list[BankDocument] = []
        vectors = [np.zeros((0, encoder.width), dtype=np.float32)]
        for first in range(0, len(shard), BATCH):
            group = [pictures[number] for number in shard[first : first + BATCH]]
            images = [picture.image for picture in group]
            made = document_vectors(
                encoder.texts([picture.caption for picture in group]),
                encoder.images(images),
            )
            vectors.append(made.numpy())
            codes = image_tokenizer.encode(images).tolist()
            documents += map(_document, group, codes)
            if on_progress:
                on_progress(start + first + len(group), len(numbers))
        added += writer.add(documents, np.concatenate(vectors))
    return added


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
