"""Captioned pictures -> token shards; restartable.

Each picture becomes one record: its captions as text ids, the main one first; its
codes as it is, mirrored where no caption speaks of a side, and if asked for moved and
zoomed a little; and the neighbours that a retriever finds for it, of which the stream
takes some. A shard depends on its own pictures alone, in the order of the collection:
any number of machines may make them, and a build that goes on makes what is missing.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cm3leon import fingerprints
from cm3leon.data.picture_report import Problem, Report
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.data.shards import (
    Alphabets,
    Record,
    Shard,
    TokenSegment,
    indexed,
    shard_about,
    write_index,
    write_shard,
)
from cm3leon.errors import DataError
from cm3leon.images.pixels import on_white
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.randomness import generator
from cm3leon.retrieval.manifest import MANIFEST
from cm3leon.retrieval.memory import BankDocument
from cm3leon.retrieval.retriever import Retriever, drop_words
from cm3leon.tokens.text import CAPTION_IDS, TextTokenizer
from cm3leon.workers import Workers, here

BATCH = 64  # pictures encoded at once
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


Codes = tuple[int, ...]
Found = Callable[
    [Sequence[Picture], Sequence[Sequence[Codes]]], list[list[BankDocument]]
]


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

    def __call__(
        self, pictures: Sequence[Picture], codes: Sequence[Sequence[Codes]]
    ) -> list[list[BankDocument]]:
        """Those found by text, then those found by picture; none twice.

        None is the picture itself, which its key tells or the codes of its versions.
        """
        share = self.retriever.config.query_dropout
        texts = [
            drop_words(one.caption, share, generator(self.seed, "query", one.id))
            for one in pictures
        ]
        encoder = self.retriever.encoder
        found = self.retriever.candidates(
            encoder.texts(texts).numpy(),
            encoder.images([one.image for one in pictures]).numpy(),
            [(one.id, *own) for one, own in zip(pictures, codes, strict=True)],
        )
        return [[neighbour.document for neighbour in one] for one in found]


def records(
    pictures: Sequence[Picture],
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    *,
    search: Found | None = None,
    mirror: bool = True,
    versions: int = 0,
    longest: int = CAPTION_IDS,
) -> Iterator[Record]:
    """Records of some pictures, encoded at once, in their order.

    Args:
        pictures: not too many: all their versions are in memory together.
        text_tokenizer: captions -> text ids.
        image_tokenizer: pixels -> codes.
        search: pictures and the codes of their versions -> what may stand before each;
            by default nothing.
        mirror: also encode mirror images where that is harmless.
        versions: of each picture beside these, shifted and zoomed a little.
        longest: captions of more text ids are left out, unless all are; then the
            first is cut.
    """
    images = [versions_of(one, mirror=mirror, extra=versions) for one in pictures]
    made = image_tokenizer.encode([image for some in images for image in some])
    rows = iter(map(tuple, made.tolist()))
    codes = [tuple(islice(rows, len(some))) for some in images]
    found = search(pictures, codes) if search else [[]] * len(pictures)
    for number, picture in enumerate(pictures):
        texts = dict.fromkeys((picture.caption, *picture.captions))
        captions = [text_tokenizer.encode(text) for text in texts]
        short = [ids for ids in captions if len(ids) <= longest]
        short = short or [captions[0][:longest]]
        yield Record(
            picture.id,
            str(picture.metadata.get("tier", "all")),
            (
                TokenSegment("text", tuple(map(tuple, short))),
                TokenSegment("image", codes[number]),
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


@dataclass(frozen=True, kw_only=True)
class ShardMaker:
    """Makes one shard of a collection, by its number; on any machine the same bytes.

    A shard that is there, whole, and was made of the same pictures with the same
    `settings`, stays as it is.
    """

    pictures: Pictures
    folder: Path
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    search: NeighbourSearch | None
    size: int  # pictures to a shard
    mirror: bool
    versions: int
    settings: Mapping[str, Any]  # what else decides what is in a shard
    known: Mapping[str, Shard]  # as an earlier index has them

    def __call__(self, number: int) -> tuple[Shard, list[Problem]]:
        """The shard, and which pictures could not be used."""
        numbers = self._pictures(number)
        if there := self._there(number, numbers):
            return there
        made: list[Record] = []
        problems: list[Problem] = []
        for start in range(0, len(numbers), BATCH):
            good: list[Picture] = []
            for one in self.pictures.some(numbers[start : start + BATCH]):
                if isinstance(one, Problem):
                    problems.append(one)
                else:
                    good.append(one)
            made += records(
                good,
                self.text_tokenizer,
                self.image_tokenizer,
                search=self.search,
                mirror=self.mirror,
                versions=self.versions,
            )
        left_out = [asdict(problem) for problem in problems]
        about = {"settings": self.settings, "left_out": left_out}
        return write_shard(self.folder, number, made, about), problems

    def _pictures(self, number: int) -> range:
        first = number * self.size
        return range(first, min(first + self.size, len(self.pictures)))

    def _there(self, number: int, numbers: range) -> tuple[Shard, list[Problem]] | None:
        found = shard_about(self.folder, number)
        if found is None:
            return None
        shard, about, keys = found
        problems = [Problem(**one) for one in about.get("left_out", ())]
        names = {problem.name for problem in problems}
        same = (
            about.get("settings") == self.settings
            and self.known.get(shard.file, shard) == shard
            and keys
            == [name for name in self.pictures.ids(numbers) if name not in names]
        )
        return (shard, problems) if same else None


def build_shards(
    pictures: Pictures,
    folder: Path,
    tokenizers: Path,
    *,
    search: NeighbourSearch | None = None,
    size: int = 2048,
    mirror: bool = True,
    versions: int = 0,
    workers: Workers = here,
    on_progress: Callable[[int], object] | None = None,
) -> Report:
    """Write (or finish writing) the shards of a collection.

    Args:
        pictures: a collection; damaged pictures are left out.
        folder: where the shards go; with workers elsewhere a folder that all see.
        tokenizers: a folder with `text_tokenizer.json` and `image_tokenizer/`.
        search: finds the neighbours; by default there are none.
        size: pictures to a shard, those that cannot be used included.
        mirror: also encode mirror images.
        versions: of each picture beside these, shifted and zoomed a little.
        workers: who makes the shards.
        on_progress: called with the pictures done, shard by shard.

    Returns:
        How many records there are, and which pictures could not be used.

    Raises:
        DataError: the folder holds shards that were made otherwise, no picture can be
            used, or the memory bank has codes of another image tokenizer.
    """
    text_tokenizer = TextTokenizer.load(tokenizers / "text_tokenizer.json")
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    if search and search.retriever.bank.config.image_tokenizer != (
        image_tokenizer.fingerprint
    ):
        raise DataError(
            f"the memory bank {search.retriever.bank.folder} holds codes of another "
            f"image tokenizer than {tokenizers}; build it again with that one"
        )
    origin = search.origin if search else ""
    alphabets = alphabets_of(
        tokenizers, text_tokenizer, image_tokenizer, origin, versions
    )
    settings = asdict(alphabets) | {
        "image_tokenizer": image_tokenizer.fingerprint,
        "mirror": mirror,
        "size": size,
    }
    _check_folder(folder, settings)
    folder.mkdir(parents=True, exist_ok=True)
    maker = ShardMaker(
        pictures=pictures,
        folder=folder.absolute(),
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        search=search,
        size=size,
        mirror=mirror,
        versions=versions,
        settings=settings,
        known=indexed(folder),
    )
    shards: list[Shard] = []
    problems = list(pictures.report.problems)
    for shard, more in workers(maker, range(-(-len(pictures) // size))):
        shards.append(shard)
        problems += more
        if on_progress:
            on_progress(min(len(shards) * size, len(pictures)))
    report = Report(good=sum(shard.records for shard in shards), problems=problems)
    pictures.check_some_left(report)
    write_index(folder, alphabets, shards)
    return report


def alphabets_of(
    folder: Path,
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    neighbours: str = "",
    versions: int = 0,
) -> Alphabets:
    """What ids mean that the tokenizers of a folder make."""
    return Alphabets(
        text_tokenizer=fingerprints.of_file(folder / "text_tokenizer.json"),
        text_size=text_tokenizer.size,
        codes_per_image=image_tokenizer.codes_per_image,
        codebook_size=image_tokenizer.codebook_size,
        neighbours=neighbours,
        versions=versions,
    )


def _check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Whether the shards of a folder, if it has any, were made with the settings."""
    for path in sorted(folder.glob("shard-*.arrow")):
        found = shard_about(folder, int(path.stem.removeprefix("shard-")))
        if found is None:
            continue  # damaged; it is made again
        if found[1].get("settings") != settings:
            raise DataError(
                f"{folder} holds shards of other tokenizers, neighbours, versions or "
                "sizes; give another folder"
            )
        return
