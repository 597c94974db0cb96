"""Captioned pictures -> token shards; restartable.

Each picture becomes one record: its captions as text ids, the main one first; its
codes as it is, mirrored where no caption speaks of a side, and if asked for moved and
zoomed a little; and the neighbours that a retriever finds for it, of which the stream
takes some. Pictures go in the order of their collection, so an interrupted build goes
on behind its last complete shard.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cm3leon import fingerprints
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.data.shards import (
    Alphabets,
    Record,
    TokenSegment,
    write_shards,
    written,
)
from cm3leon.errors import DataError
from cm3leon.images.pixels import on_white
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.randomness import generator
from cm3leon.retrieval.manifest import MANIFEST
from cm3leon.retrieval.memory import BankDocument
from cm3leon.retrieval.retriever import Retriever, drop_words
from cm3leon.tokens.text import TextTokenizer

MOST_SHIFT = 1 / 16  # of the side
LEAST_ZOOM = 0.8
MOST_ZOOM = 1.05
NEARLY_WHITE = 240

# what a mirror image would make untrue, or unreadable
SIDED = re.compile(
    r"\b(left|right|clockwise|anticlockwise|counterclockwise|flags?|arrows?|letters?|"
    r"numbers?|digits?|keycap|buttons?|clock|o.clock|map|sign|text|word|music(al)?|"
    r"east|west|maps?|symbol|calendar|dice|die)\b",
    re.IGNORECASE,
)


def may_mirror(picture: Picture) -> bool:
    """Whether no caption speaks of a side, of writing or of something with a hand."""
    return not any(SIDED.search(caption) for caption in picture.captions)


def moved(image: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture smaller or a little larger, and a little to a side, on white.

    A picture that fills its frame only grows, by what the shift needs at least.
    """
    image = on_white(image)
    small = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).mean(axis=-1)
    rim = np.concatenate([small[0], small[-1], small[1:-1, 0], small[1:-1, -1]])
    shift = random.uniform(-MOST_SHIFT, MOST_SHIFT, 2)
    low, high = LEAST_ZOOM, MOST_ZOOM
    if float((rim < NEARLY_WHITE).mean()) > 0.75:
        low = 1 / (1 - 2 * float(np.abs(shift).max()))
        high = low * MOST_ZOOM
    zoom = random.uniform(low, high)
    width, height = image.size
    matrix = (
        1 / zoom,
        0.0,
        width * (0.5 - 0.5 / zoom + shift[0]),
        0.0,
        1 / zoom,
        height * (0.5 - 0.5 / zoom + shift[1]),
    )
    return image.transform(
        image.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BICUBIC,
        fillcolor="white",
    )


def versions_of(picture: Picture, *, mirror: bool, extra: int) -> list[Image.Image]:
    """A picture as it is, mirrored where that is harmless, and moved `extra` times.

    Half of the moved ones are mirrored too. The picture's id alone decides how.
    """
    mirrored = mirror and may_mirror(picture)
    images: list[Image.Image] = [picture.image]
    if mirrored:
        images.append(ImageOps.mirror(picture.image))
    for number in range(extra):
        random = generator(0, "version", picture.id, number)
        images.append(moved(images[number % 2 if mirrored else 0], random))
    return images


Found = Callable[[Sequence[Picture]], list[list[BankDocument]]]


@dataclass(frozen=True)
class NeighbourSearch:
    """The neighbours of pictures to learn from, best first. Yu et al. 2023, §2.1.

    A caption's words are left out by `seed` and the picture's id alone, so a build that
    resumes finds the same; another seed makes another epoch's.
    """

    retriever: Retriever
    seed: int = 0

    @property
    def origin(self) -> str:
        """What decides which neighbours are found, beside the picture."""
        bank = fingerprints.of_file(self.retriever.bank.folder / MANIFEST)
        rules = self.retriever.config
        return f"bank {bank}, rules {rules}, seed {self.seed}"

    def __call__(self, pictures: Sequence[Picture]) -> list[list[BankDocument]]:
        """Those found by text, then those found by picture; none twice."""
        share = self.retriever.config.query_dropout
        texts = [
            drop_words(one.caption, share, generator(self.seed, "query", one.id))
            for one in pictures
        ]
        encoder = self.retriever.encoder
        found = self.retriever.candidates(
            encoder.texts(texts).numpy(),
            encoder.images([one.image for one in pictures]).numpy(),
            [one.id for one in pictures],
        )
        return [[neighbour.document for neighbour in one] for one in found]


def records(
    pictures: Pictures,
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    *,
    search: Found | None = None,
    skip: int = 0,
    mirror: bool = True,
    versions: int = 0,
    longest: int = 30,
    batch: int = 64,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Record]:
    """Records in the order of the pictures.

    Args:
        pictures: the collection.
        text_tokenizer: captions -> text ids.
        image_tokenizer: pixels -> codes.
        search: pictures -> what may stand before each; by default nothing.
        skip: pictures already written.
        mirror: also encode mirror images where that is harmless.
        versions: of each picture beside these, shifted and zoomed a little.
        longest: captions of more text ids are left out, unless all are; then the
            first is cut.
        batch: pictures encoded at once.
        on_progress: called with the pictures done.
    """
    for start in range(skip, len(pictures), batch):
        group = [
            pictures[index] for index in range(start, min(start + batch, len(pictures)))
        ]
        images = [versions_of(one, mirror=mirror, extra=versions) for one in group]
        made = image_tokenizer.encode([image for some in images for image in some])
        codes = iter(map(tuple, made.tolist()))
        found = search(group) if search else [[]] * len(group)
        for number, picture in enumerate(group):
            texts = dict.fromkeys((picture.caption, *picture.captions))
            captions = [text_tokenizer.encode(text) for text in texts]
            short = [ids for ids in captions if len(ids) <= longest]
            short = short or [captions[0][:longest]]
            yield Record(
                picture.id,
                str(picture.metadata.get("tier", "all")),
                (
                    TokenSegment("text", tuple(map(tuple, short))),
                    TokenSegment("image", tuple(islice(codes, len(images[number])))),
                ),
                tuple(
                    (
                        TokenSegment(
                            "text", (tuple(text_tokenizer.encode(one.text)[:longest]),)
                        ),
                        TokenSegment("image", (one.codes,)),
                    )
                    for one in found[number]
                ),
            )
        if on_progress:
            on_progress(start + len(group))


def build_shards(
    pictures: Pictures,
    folder: Path,
    tokenizers: Path,
    *,
    search: NeighbourSearch | None = None,
    size: int = 2048,
    mirror: bool = True,
    versions: int = 0,
    on_progress: Callable[[int], object] | None = None,
) -> int:
    """Write (or finish writing) the shards of a collection; the number of records.

    Args:
        pictures: a collection, scanned before if some may be damaged.
        folder: where the shards go.
        tokenizers: a folder with `text_tokenizer.json` and `image_tokenizer/`.
        search: finds the neighbours; by default there are none.
        size: records per shard.
        mirror: also encode mirror images.
        versions: of each picture beside these, shifted and zoomed a little.
        on_progress: called with the pictures done.

    Raises:
        DataError: the folder holds shards of other tokenizers, or the memory bank has
            codes of another image tokenizer.
    """
    text_file = tokenizers / "text_tokenizer.json"
    text_tokenizer = TextTokenizer.load(text_file)
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    if search and search.retriever.bank.config.image_tokenizer != (
        image_tokenizer.fingerprint
    ):
        raise DataError(
            f"the memory bank {search.retriever.bank.folder} holds codes of another "
            f"image tokenizer than {tokenizers}; build it again with that one"
        )
    alphabets = Alphabets(
        text_tokenizer=fingerprints.of_file(text_file),
        text_size=text_tokenizer.size,
        codes_per_image=image_tokenizer.codes_per_image,
        codebook_size=image_tokenizer.codebook_size,
        neighbours=search.origin if search else "",
        versions=versions,
    )
    done = written(folder, alphabets)
    made = records(
        pictures,
        text_tokenizer,
        image_tokenizer,
        search=search,
        skip=done,
        mirror=mirror,
        versions=versions,
        on_progress=on_progress,
    )
    for count in write_shards(folder, made, alphabets, size=size, skip=done):
        done = count
    return done
