"""An interleaved document, as people see it, before it becomes ids."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image as Pillow

from cm3leon.errors import RequestError
from cm3leon.images.picture_files import Refusal, decode


@dataclass(frozen=True)
class Text:
    """Words."""

    text: str


@dataclass(frozen=True)
class Image:
    """A picture: as codes of an image tokenizer, as pixels, or both.

    Args:
        codes: in raster order.
        pixels: RGB.
        attribution: of a drawn picture, what was retrieved for it: of each neighbour
            its key, text, source, licence, author and relevance.
    """

    codes: tuple[int, ...] | None = None
    pixels: Pillow.Image | None = field(default=None, compare=False)
    attribution: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, path: str | Path) -> "Image":
        """Read a picture file whole: upright, in RGB on white.

        Raises:
            RequestError: there is none, it is damaged, or it is far too large.
        """
        found = decode(Path(path))
        if isinstance(found, Refusal):
            raise RequestError(
                f"{path}: {found.kind} ({found.reason}); give a whole PNG, JPEG or WebP"
            )
        return cls(pixels=found)

    def save(self, path: str | Path) -> None:
        """Write the pixels; the ending names the format.

        Raises:
            RequestError: there are only codes.
        """
        if self.pixels is None:
            raise RequestError("this picture has codes but no pixels; decode it first")
        self.pixels.save(path)


@dataclass(frozen=True)
class Hole:
    """The place the model is to fill."""

    wants: Literal["text", "image"] = "text"


Segment = Text | Image | Hole


@dataclass(frozen=True, init=False)
class Document:
    """Segments in reading order."""

    segments: tuple[Segment, ...]

    def __init__(self, *segments: Segment) -> None:
        object.__setattr__(self, "segments", segments)

    @property
    def text(self) -> str:
        """All its words, joined by spaces."""
        return " ".join(s.text for s in self.segments if isinstance(s, Text))

    @property
    def images(self) -> list[Image]:
        """Its pictures, in order."""
        return [s for s in self.segments if isinstance(s, Image)]

    @property
    def holes(self) -> list[Hole]:
        """Its holes, in order."""
        return [s for s in self.segments if isinstance(s, Hole)]
