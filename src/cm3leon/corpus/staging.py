"""A source's drawn pictures in one file, so that a build that was stopped goes on.

    FOLDER/stage/SOURCE.parquet    image (PNG), thumbnail, grey, colors, and its facts

A file is written whole or not at all, and drawn anew when what it was made from has
changed: an archive, the limit, a library that draws, or the rules of this recipe.
"""

import importlib.metadata
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt16
from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.colours import main_colours
from cm3leon.corpus.drawing import SIDE, is_blank, is_grey
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.licences import is_attribution
from cm3leon.corpus.partial import written_whole

RECIPE = 1  # raise it when a rule changes what a source draws or says
THUMBNAIL = 16
_ROWS_AT_ONCE = 500
_KEY = b"made_from"

_TEXT_LISTS = ("keywords",)
_FLAGS = ("tags", "toned")
_SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("thumbnail", pa.binary()),
        ("grey", pa.bool_()),
        ("colors", pa.list_(pa.string())),
        *(
            (
                field.name,
                pa.list_(pa.string())
                if field.name in _TEXT_LISTS
                else pa.bool_()
                if field.name in _FLAGS
                else pa.string(),
            )
            for field in fields(Facts)
        ),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Staged:
    """One drawn picture without its pixels.

    Args:
        place: its row in the file of its source.
        thumbnail: channels summed over the squares of a 16 x 16 grid.
    """

    source: Source
    place: int
    facts: Facts
    thumbnail: UInt16[np.ndarray, " values"]
    grey: bool
    colors: tuple[str, ...]

    @property
    def is_attribution(self) -> bool:
        """Whether it may be used by naming its author."""
        return is_attribution(self.facts.licence)


def stage(
    source: Source,
    archives: Archives,
    folder: Path,
    *,
    limit: int | None,
    advance: Callable[[int], None],
) -> Path:
    """Draw a source's pictures into its file, unless that is there already.

    Args:
        source: what to draw.
        archives: where from.
        folder: where the files of all sources are.
        limit: about the most pictures to draw; `None` for all.
        advance: told how many pictures were drawn since the last call.
    """
    path = folder / f"{source.name}.parquet"
    made_from = _made_from(source, archives, limit)
    if _is_current(path, made_from):
        advance(pq.read_metadata(path).num_rows)
        return path
    schema = _SCHEMA.with_metadata({_KEY: made_from})
    rows = _rows(source, archives, limit)
    with (
        written_whole(path) as partial,
        pq.ParquetWriter(partial, schema) as writer,
    ):
        while group := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            advance(len(group))
    return path


def read_staged(source: Source, path: Path) -> list[Staged]:
    """The pictures of a source, without pixels, in the order in which it gave them."""
    columns = [name for name in _SCHEMA.names if name != "image"]
    rows = pq.read_table(path, columns=columns).to_pylist()
    return [_staged(source, place, row) for place, row in enumerate(rows)]


def read_images(path: Path) -> list[bytes]:
    """The PNG files of a source's pictures, in the same order."""
    images: list[bytes] = pq.read_table(path, columns=["image"])["image"].to_pylist()
    return images


def thumbnail(image: Image.Image) -> UInt16[np.ndarray, " values"]:
    """The channels of a picture summed over the squares of a 16 x 16 grid."""
    edge = SIDE // THUMBNAIL
    squares = np.asarray(image).reshape(THUMBNAIL, edge, THUMBNAIL, edge, 3)
    sums: np.ndarray = squares.sum(axis=(1, 3), dtype=np.uint16)
    return sums.ravel()


def _rows(
    source: Source, archives: Archives, limit: int | None
) -> Iterator[dict[str, Any]]:
    """Pictures that show something, whatever the licence of each.

    The limit counts pictures that may be used by naming the author, if the source has
    such at all: which of the others are used is chosen later.
    """
    counted = 0
    for drawing in source.draw(source, archives):
        if limit is not None and counted >= limit:
            return
        if drawing.facts.label.strip() and not is_blank(drawing.image):
            counted += source.share_alike or is_attribution(drawing.facts.licence)
            yield _row(drawing)


def _row(drawing: Drawing) -> dict[str, Any]:
    image, facts = drawing
    png = io.BytesIO()
    image.save(png, "PNG")
    grey = is_grey(image)
    return asdict(facts) | {
        "label": facts.label.strip(),
        "keywords": tuple(dict.fromkeys(facts.keywords)),
        "image": png.getvalue(),
        "thumbnail": thumbnail(image).tobytes(),
        "grey": grey,
        "colors": () if grey else main_colours(image),
    }


def _staged(source: Source, place: int, row: Mapping[str, Any]) -> Staged:
    facts = {field.name: row[field.name] for field in fields(Facts)}
    return Staged(
        source=source,
        place=place,
        facts=Facts(**facts | {"keywords": tuple(facts["keywords"])}),
        thumbnail=np.frombuffer(row["thumbnail"], dtype=np.uint16),
        grey=row["grey"],
        colors=tuple(row["colors"]),
    )


def _made_from(source: Source, archives: Archives, limit: int | None) -> bytes:
    """What decides the contents of a source's file."""
    return json.dumps(
        {
            "recipe": RECIPE,
            "archives": [archives.at_hand[name].sha256 for name in source.packages],
            "limit": limit,
            "libraries": [
                importlib.metadata.version(name) for name in ("pillow", "resvg-py")
            ],
        }
    ).encode()


def _is_current(path: Path, made_from: bytes) -> bool:
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return False
    return metadata.get(_KEY) == made_from
