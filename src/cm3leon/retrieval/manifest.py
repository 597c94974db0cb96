"""The files of a memory bank, and the one manifest that names them all.

    FOLDER/manifest.json           format, config, index, and each file's bytes, sha256
          /documents-00000.arrow   what the vectors stand for
          /vectors-00000.npy       fp16, in the same order
          /index-00000.faiss       unless the search is exhaustive
          /.lock                   empty; held by whoever writes

Every file is written aside, forced to the disk and then renamed to a name that the
manifest does not use; only then a new manifest takes the old one's place. So a writer
killed at any moment leaves the bank as it was before or as it is after, and what no
manifest names is swept away by the next one. A folder takes one writer at a time: the
system holds its lock, and lets go of it when the writer dies. Where the manifest itself
is gone nothing is swept.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from cm3leon import fingerprints
from cm3leon.errors import ConfigError, DataError, ShardCorrupt
from cm3leon.retrieval.vector_index import IndexReport, IndexSettings

FORMAT = 1
MANIFEST = "manifest.json"
LOCK = ".lock"
OURS = re.compile(r"(documents-\d+\.arrow|vectors-\d+\.npy|index-\d+\.faiss)(\.part)?")


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """What the vectors and codes of a bank mean: they fit no other encoders."""

    width: int  # of a vector
    encoder: str  # fingerprint of the bi-encoder
    image_tokenizer: str  # fingerprint of its weights
    codes_per_image: int
    codebook_size: int


@dataclass(frozen=True, kw_only=True)
class File:
    """A file as it must be."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not OURS.fullmatch(self.name):  # nor may it lead out of the folder
            raise ValueError(f"{self.name!r} is no name of a bank's file")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Some documents of a bank, with their vectors."""

    count: int
    documents: File
    vectors: File


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All there is to know of a bank without opening its files.

    Args:
        config: what vectors and codes mean.
        settings: how its index was chosen, and will be when documents come or go.
        complete: False while documents are added, or if that was killed.
        shards: in the order of the documents.
        part: which of how many, from 0; None unless it waits to be merged.
        index: None until it is built, and for a part.
        index_file: None for an index that is made of the vectors when it is opened.
        indexed: how many of the documents the index is of, the first ones.
    """

    format: int = FORMAT
    config: BankConfig
    settings: IndexSettings
    complete: bool = False
    part: tuple[int, int] | None = None
    shards: tuple[Shard, ...] = ()
    index: IndexReport | None = None
    index_file: File | None = None
    indexed: int = 0

    @property
    def count(self) -> int:
        """Documents in its shards."""
        return sum(shard.count for shard in self.shards)

    @property
    def files(self) -> list[File]:
        """Every file it names."""
        pairs = [
            file for shard in self.shards for file in (shard.documents, shard.vectors)
        ]
        return [*pairs, *([self.index_file] if self.index_file else [])]


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        DataError: there is none, or one of another format.
        ShardCorrupt: it is damaged, or gone while its files are there.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        check_none_lost(folder)
        raise DataError(
            f"{folder} holds no memory bank ({error.strerror}: {MANIFEST}); build one "
            "with cm3leon memory build"
        ) from error
    try:
        table = from_json(text)
        found = table.get("format") if isinstance(table, dict) else None
        if isinstance(found, int) and found != FORMAT:
            raise DataError(
                f"{path} has bank format {found}, this version reads {FORMAT}; build "
                "the bank again"
            )
        return _MANIFEST.validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ShardCorrupt(
            f"{path} is damaged ({place}: {first['msg']}); build the bank again"
        ) from error
    except (ConfigError, ValueError) as error:
        raise ShardCorrupt(f"{path} is damaged ({error}); build it again") from error


def check_none_lost(folder: Path) -> None:
    """Whether a folder without a manifest may become a bank.

    Raises:
        ShardCorrupt: it holds files of one, which a new manifest would sweep away.
    """
    names = sorted(path.name for path in folder.glob("*") if OURS.fullmatch(path.name))
    if names:
        raise ShardCorrupt(
            f"{folder} holds {names[0]} of a memory bank, but its {MANIFEST} is gone; "
            "put that back from a copy, or build the bank again in another folder"
        )


def lock(folder: Path) -> BaseFileLock:
    """The right to write to a folder, until it is released, dropped, or we die.

    Raises:
        DataError: somebody else has it.
    """
    held = FileLock(folder / LOCK)
    try:
        held.acquire(blocking=False)
    except Timeout as error:
        raise DataError(
            f"{folder} is being written by somebody else; wait until that is done, or "
            "build in another folder and merge the two"
        ) from error
    return held


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Let `manifest` take the old one's place, and sweep what it does not name."""
    path = folder / MANIFEST
    partial = path.with_name(MANIFEST + ".part")
    partial.write_bytes(_MANIFEST.dump_json(manifest, indent=1) + b"\n")
    settle(partial, path)
    sweep(folder, manifest)


def sweep(folder: Path, manifest: Manifest | None) -> None:
    """Remove what a killed writer left, and what has been replaced."""
    named = {file.name for file in manifest.files} if manifest else set()
    for path in folder.iterdir():
        if OURS.fullmatch(path.name) and path.name not in named:
            path.unlink()


def write_file(folder: Path, name: str, write: Callable[[Path], object]) -> File:
    """A file that `write` fills, in place under its name whole or not at all."""
    partial = folder / (name + ".part")
    write(partial)
    file = File(
        name=name, bytes=partial.stat().st_size, sha256=fingerprints.of_file(partial)
    )
    settle(partial, folder / name)
    return file


def next_number(names: Iterable[str]) -> int:
    """The first number that no file uses, counting up.

    >>> next_number(["vectors-00000.npy", "vectors-00004.npy"])
    5
    """
    numbers = [int(re.findall(r"\d+", name)[-1]) for name in names]
    return max(numbers, default=-1) + 1


def damage(folder: Path, file: File, *, verify: bool = True) -> str | None:
    """What is wrong with a file, in one line; `verify` compares its checksum."""
    path = folder / file.name
    if not path.exists():
        return f"{path} is missing; build the bank again"
    size = path.stat().st_size
    if size != file.bytes:
        return (
            f"{path} has {size} bytes, the manifest says {file.bytes}; build the bank "
            "again"
        )
    if verify and fingerprints.of_file(path) != file.sha256:
        return f"{path} differs from its checksum; build the bank again"
    return None


def settle(partial: Path, path: Path) -> None:
    """Have the contents on the disk before the name, or a power cut leaves neither."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)
