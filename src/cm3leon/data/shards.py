"""The on-disk token format: Arrow files of records, with an index of checksums.

    FOLDER/index.json            what the ids mean, and each shard's records and sha256
          /shard-00000.arrow     records: key, group, segments, neighbours

A record is one document before choices are made: each segment lists alternatives (a
picture's captions; a picture as it is, mirrored, moved); the stream takes one per
pass. Ids are those of the segment's own alphabet, text ids or codes, so another
vocabulary layout needs no new shards. Its neighbours, the documents that retrieval
found for it, lie with it, as in the authors' files: reading needs no memory bank.
Shards are written whole or not at all, the index when all of them are there.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cm3leon import fingerprints
from cm3leon.errors import DataError, ShardCorrupt
from cm3leon.retrieval.manifest import settle

FORMAT = 2
INDEX = "index.json"
ABOUT = b"cm3leon"  # the key of what a shard's schema says of its making

_ALTERNATIVES = ("alternatives", pa.list_(pa.list_(pa.int32())))
_SEGMENTS = pa.list_(pa.struct([("kind", pa.string()), _ALTERNATIVES]))
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("group", pa.string()),
        ("segments", _SEGMENTS),
        ("neighbours", pa.list_(_SEGMENTS)),
    ]
)


@dataclass(frozen=True)
class TokenSegment:
    """One segment of a record: text ids or codes, in several versions."""

    kind: Literal["text", "image"]
    alternatives: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Record:
    """One document on disk, and those that may stand before it.

    Args:
        key: of the document.
        group: the part of a mixture it belongs to.
        segments: the document.
        neighbours: first those found by its text, then by its picture, each the most
            relevant first.
    """

    key: str
    group: str
    segments: tuple[TokenSegment, ...]
    neighbours: tuple[tuple[TokenSegment, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Alphabets:
    """What the ids of a shard mean: they fit no other tokenizers."""

    text_tokenizer: str  # fingerprint
    text_size: int
    codes_per_image: int
    codebook_size: int
    neighbours: str = ""  # which bank they are from, and the seed of the search
    versions: int = 0  # of each picture, moved


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard as the index names it."""

    file: str
    records: int
    bytes: int
    sha256: str


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{number:05d}.arrow"


def write_shard(
    folder: Path,
    number: int,
    records: Iterable[Record],
    about: Mapping[str, Any] | None = None,
) -> Shard:
    """Write one shard, whole or not at all; `about` is kept in it for `shard_about`."""
    path = shard_path(folder, number)
    partial = path.with_suffix(".partial")
    schema = SCHEMA.with_metadata({ABOUT: json.dumps(about or {}, sort_keys=True)})
    table = pa.Table.from_pylist([asdict(record) for record in records], schema)
    with (
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        writer.write_table(table, max_chunksize=64)
    shard = _described(partial, path.name, len(table))
    settle(partial, path)
    return shard


def shard_about(
    folder: Path, number: int
) -> tuple[Shard, dict[str, Any], list[str]] | None:
    """A shard that is there, what was said about it, and its keys; None if damaged."""
    path = shard_path(folder, number)
    try:
        table = _table(path)
        about = json.loads((table.schema.metadata or {}).get(ABOUT, "{}"))
        keys = table.column("key").to_pylist()
        return _described(path, path.name, len(table)), about, keys
    except (OSError, pa.ArrowException, ValueError):
        return None


def write_index(folder: Path, alphabets: Alphabets, shards: Sequence[Shard]) -> None:
    """Make shards readable; others in the folder, of an earlier writing, go."""
    index = {
        "format": FORMAT,
        "alphabets": asdict(alphabets),
        "shards": [asdict(shard) for shard in shards],
    }
    partial = folder / ".index.partial"
    partial.write_text(json.dumps(index, indent=1) + "\n")
    settle(partial, folder / INDEX)
    named = {shard.file for shard in shards}
    for path in folder.glob("shard-*"):
        if path.name not in named:
            path.unlink()


def indexed(folder: Path) -> dict[str, Shard]:
    """The shards that an index names, by their files; none if there is no index."""
    if not (folder / INDEX).exists():
        return {}
    return {shard["file"]: Shard(**shard) for shard in _index(folder)["shards"]}


def write_shards(
    folder: Path, records: Iterable[Record], alphabets: Alphabets, *, size: int = 4096
) -> Iterator[int]:
    """Write records as shards of `size`, yielding the records done after each shard.

    Args:
        folder: where the shards go, and once all are there the index.
        records: in an order that is the same each time.
        alphabets: what the ids mean.
        size: records per shard.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    source = iter(records)
    while group := list(islice(source, size)):
        shards.append(write_shard(folder, len(shards), group))
        yield sum(shard.records for shard in shards)
    write_index(folder, alphabets, shards)


def _index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} holds no token shards ({error}); write some with "
            "cm3leon data shards"
        ) from error
    if index.get("format") != FORMAT:
        raise DataError(
            f"{folder} has shard format {index.get('format')}, this version reads "
            f"{FORMAT}; build the shards again"
        )
    return index


class Shards:
    """All records of a folder of shards, memory-mapped and read by number."""

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        """Open a folder; `verify` compares every checksum.

        Raises:
            ShardCorrupt: a shard is missing, truncated or altered; it is named.
        """
        index = _index(folder)
        self.alphabets = Alphabets(**index["alphabets"])
        tables = []
        for shard in index["shards"]:
            path = folder / shard["file"]
            if not path.exists() or path.stat().st_size != shard["bytes"]:
                raise ShardCorrupt(f"{path} is missing or truncated; build it again")
            if verify and fingerprints.of_file(path) != shard["sha256"]:
                raise ShardCorrupt(f"{path} differs from its checksum; build it again")
            tables.append(_table(path))
        self.table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __getitem__(self, index: int) -> Record:
        row = self.table.slice(index, 1).to_pylist()[0]
        neighbours = tuple(map(_segments, row["neighbours"]))
        return Record(row["key"], row["group"], _segments(row["segments"]), neighbours)

    def groups(self) -> dict[str, np.ndarray]:
        """The numbers of each group's records."""
        names = np.array(self.table.column("group").to_pylist(), dtype=object)
        return {str(name): np.flatnonzero(names == name) for name in sorted(set(names))}


def _segments(parts: list[dict[str, Any]]) -> tuple[TokenSegment, ...]:
    return tuple(
        TokenSegment(part["kind"], tuple(map(tuple, part["alternatives"])))
        for part in parts
    )


def _table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _described(path: Path, name: str, records: int) -> Shard:
    size, sha256 = path.stat().st_size, fingerprints.of_file(path)
    return Shard(file=name, records=records, bytes=size, sha256=sha256)
