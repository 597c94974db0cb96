"""What a source gives: pictures, and what it says about each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

from cm3leon.corpus.archives import Archives


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a source says about one picture.

    Args:
        key: the picture's name in its source.
        label: what is to be seen, a few words.
        tags: whether the label is a list of tags, which takes no article.
        keywords: more words for the same picture.
        sentence: a whole sentence that people wrote, if there is one.
        concept: what the picture shows, if it does not follow from the label.
        group: a broad class; `subgroup`: a narrow one.
        unicode: code point of an emoji, in hexadecimal, without its skin tone.
        toned: whether it is a skin-tone variant.
    """

    key: str
    label: str
    style: str
    licence: str
    author: str
    keywords: tuple[str, ...] = ()
    group: str = ""
    subgroup: str = ""
    unicode: str = ""
    sentence: str = ""
    concept: str = ""
    tags: bool = False
    toned: bool = False


class Drawing(NamedTuple):
    """A picture, square and on white, with its facts."""

    image: Image.Image
    facts: Facts


@dataclass(frozen=True, kw_only=True)
class Source:
    """One artist's or collection's pictures in one style.

    Args:
        package: where the pictures are.
        names: other packages that are read for names only.
        licence: of every picture, or `per file`.
        share_alike: whether every picture asks for more than attribution.
        pictures: in the default build, once near-duplicates are gone.
        train: those of them in the train split.
        draw: the pictures, always in the same order.
    """

    name: str
    package: str
    style: str
    licence: str
    author: str
    draw: Callable[["Source", Archives], Iterator[Drawing]]
    names: tuple[str, ...] = ()
    share_alike: bool = False
    pictures: int = 0
    train: int = 0

    @property
    def packages(self) -> tuple[str, ...]:
        """Every package that is read."""
        return (self.package, *self.names)
