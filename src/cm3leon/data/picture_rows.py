"""Rows of captioned pictures as every kind of collection gives them, nothing decoded.

A `Table` is a Hugging Face `datasets.Dataset` and the names of its columns. A cell of
the image column says where the encoded picture is: its `bytes`, or the `path` of a file
and, inside a tar, `offset` and `size`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from cm3leon.data.picture_report import Problem

_CAPTIONS = ("captions", "caption")
_OTHERS = ("text", "txt", "prompt", "description", "title")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with a picture each.

    Args:
        rows: the table, in memory or mapped.
        image: the column that says where pictures are.
        captions: the columns that hold captions, the best first.
        folder: where relative paths start.
        packed: the column that holds all metadata as JSON; `None`: every column that
            is neither picture nor captions is metadata.
        names: file and number of rows in it, for pictures that have no name.
        problems: what was found wrong while the table was made.
    """

    rows: datasets.Dataset
    image: str
    captions: Sequence[str]
    folder: Path
    packed: str | None = None
    names: Sequence[tuple[str, int]] = ()
    problems: Sequence[Problem] = ()

    def name(self, index: int, row: Mapping[str, Any]) -> str:
        """What to call a picture: its id, its file, or its place."""
        if isinstance(row.get("id"), str):
            return str(row["id"])
        cell = row[self.image]
        if isinstance(cell, dict) and cell.get("path"):
            return str(cell["path"])
        for file, rows in self.names:
            if index < rows:
                return f"{file} row {index}"
            index -= rows
        return f"row {index}"

    def metadata(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """What a row says beside picture, captions and id."""
        if self.packed is not None:
            packed: dict[str, Any] = json.loads(row[self.packed])
            return packed
        others = {self.image, *self.captions, "id"}
        return {name: value for name, value in row.items() if name not in others}


@dataclass(frozen=True)
class Found:
    """One picture of a folder or a tar, before it becomes a row."""

    id: str
    path: Path
    captions: Sequence[str]
    offset: int = 0
    size: int = -1  # to the end of the file
    metadata: Mapping[str, Any] = field(default_factory=dict)


def clean_captions(*values: Any) -> tuple[str, ...]:
    """Captions from texts and lists of texts: no empty ones, each once.

    >>> clean_captions(["a cat", " "], "a cat", None)
    ('a cat',)
    """
    texts = []
    for value in values:
        for text in value if isinstance(value, list | tuple) else [value]:
            if isinstance(text, bytes):
                text = text.decode(errors="replace")
            if isinstance(text, str) and text.strip():
                texts.append(text.strip())
    return tuple(dict.fromkeys(texts))


def find_captions(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions of a metadata record, from the columns that usually hold them."""
    return clean_captions(*(record[name] for name in caption_names(record)))


def caption_names(names: Iterable[str]) -> list[str]:
    """Which of the names are those of captions, the best first.

    >>> caption_names(["title", "image", "text"]), caption_names(["text", "caption"])
    (['text'], ['caption'])
    """
    names = set(names)
    own = [name for name in _CAPTIONS if name in names]
    return own or [name for name in _OTHERS if name in names][:1]


def encoded_picture(cell: Any, folder: Path) -> bytes | Path | None:
    """The encoded bytes of a cell, or their file; `None` if there is neither."""
    if not cell:
        return None
    if isinstance(cell, bytes):
        return cell
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    path = folder / str(cell["path"]) if cell.get("path") else None
    if path is None or not path.is_file():
        return None
    size = cell.get("size", -1)
    if size < 0:
        return path
    with path.open("rb") as file:
        file.seek(cell["offset"])
        return file.read(size)
