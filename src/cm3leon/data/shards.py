"""The on-disk token format: Arrow files of records, with an index of checksums.

    FOLDER/index.json            what the ids mean, and each shard's records and sha256
          /shard-00000.arrow     records: key, group, segments, neighbours

A record is one document before choices are made: each segment lists alternatives (a
picture's captions; a picture as it is, mirrored, moved); the stream takes one per
pass. Ids are those of the segment's own alphabet, text ids or codes, so another
vocabulary layout needs no new shards. Its neighbours, the documents that retrieval
found for it, lie with it, as in the authors' files: reading needs no memory bank.
Shards are written whole or not at all.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cm3leon import fingerprints
from cm3leon.errors import DataError, ShardCorrupt

FORMAT = 2
INDEX = "index.json"

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


def write_shards(
    folder: Path,
    records: Iterable[Record],
    alphabets: Alphabets,
    *,
    size: int = 4096,
    skip: int = 0,
) -> Iterator[int]:
    """Write records as shards of `size`, yielding the records done after each shard.

    Args:
        folder: where the index and the shards go.
        records: in an order that is the same each time.
        alphabets: what the ids mean.
        size: records per shard.
        skip: records already in complete shards, which `records` leaves out; see
            `written`.

    Raises:
        DataError: `skip` is not what the folder holds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = _index(folder)["shards"] if (folder / INDEX).exists() else []
    if skip != sum(shard["records"] for shard in shards):
        raise DataError(f"{folder} does not hold {skip} records; delete it to restart")
    source = iter(records)
    while group := list(islice(source, size)):
        path = folder / f"shard-{len(shards):05d}.arrow"
        partial = path.with_suffix(".partial")
        table = pa.Table.from_pylist([asdict(record) for record in group], SCHEMA)
        with (
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            writer.write_table(table, max_chunksize=64)
        entry = {
            "file": path.name,
            "records": len(group),
            "bytes": partial.stat().st_size,
            "sha256": fingerprints.of_file(partial),
        }
        partial.rename(path)
        shards = [*shards, entry]
        index = {"format": FORMAT, "alphabets": asdict(alphabets), "shards": shards}
        temporary = folder / ".index.partial"
        temporary.write_text(json.dumps(index, indent=1) + "\n")
        temporary.rename(folder / INDEX)
        yield sum(shard["records"] for shard in shards)


def written(folder: Path, alphabets: Alphabets) -> int:
    """Records in the complete shards of a folder; 0 if there is none.

    Raises:
        DataError: the shards there were made with other tokenizers.
    """
    if not (folder / INDEX).exists():
        return 0
    index = _index(folder)
    if Alphabets(**index["alphabets"]) != alphabets:
        raise DataError(
            f"{folder} holds shards of other tokenizers, neighbours or versions; "
            "give another folder"
        )
    return sum(int(shard["records"]) for shard in index["shards"])


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
            tables.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all())
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
