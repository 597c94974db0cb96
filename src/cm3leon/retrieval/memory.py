"""A memory bank: documents on disk, their vectors, and an index over these.

    build, add   documents of one shard after another are written and named in the
                 manifest, which says `complete` once the index is there too
    remove       shards that hold one of the documents are written again
    merge        files of several banks, built apart, become one bank's

Whatever is killed, the same call finishes; a document that is there is not added again.
Which picture a document's key names is for the caller to know (`BankWriter.lookup`).
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32, Int64

from cm3leon.errors import DataError, RequestError, ShardCorrupt
from cm3leon.retrieval.manifest import (
    MANIFEST,
    BankConfig,
    File,
    Manifest,
    Shard,
    check_none_lost,
    damage,
    lock,
    next_number,
    read_manifest,
    sweep,
    write_file,
    write_manifest,
)
from cm3leon.retrieval.vector_index import (
    IndexSettings,
    Progress,
    VectorIndex,
    Vectors,
)
from cm3leon.tokens.document import Document, Image, Text
from cm3leon.workers import Workers, here

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("codes", pa.list_(pa.uint16())),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("author", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class BankDocument:
    """A captioned picture and whose it is."""

    key: str  # of its picture; a bank holds a picture once
    text: str
    codes: tuple[int, ...]
    source: str = ""
    licence: str = ""
    author: str = ""

    def document(self) -> Document:
        """As it stands before a prompt."""
        return Document(Text(self.text), Image(codes=self.codes))


class _Opened(NamedTuple):
    """What the shards of a bank hold."""

    table: pa.Table
    vectors: Vectors


class MemoryBank:
    """A finished bank, memory-mapped."""

    def __init__(
        self, folder: Path, manifest: Manifest, table: pa.Table, index: VectorIndex
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self._table = table
        self._index = index

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> "MemoryBank":
        """Open a bank; `verify` compares every checksum.

        Raises:
            DataError: there is none, it was not finished, it is a part to be merged, or
                its index does not fit.
            ShardCorrupt: a file is missing, truncated or altered; it is named.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        bank = _opened(folder, manifest, verify=verify)
        if not manifest.complete:
            raise DataError(
                f"{folder} was not finished ({manifest.count} documents are in it); "
                "run what was building it again"
            )
        if manifest.index is None:
            part = manifest.part
            which = f"part {part[0]} of {part[1]} (from 0)" if part else "a part"
            raise DataError(
                f"{folder} is {which}, which is not searched by itself; join all parts "
                "with cm3leon memory merge"
            )
        file = manifest.index_file
        path = folder / file.name if file else None
        index = VectorIndex.load(bank.vectors, manifest.index, path)
        return cls(folder, manifest, bank.table, index)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled it is its folder, and opened again where it is unpickled."""
        return partial(MemoryBank.open, verify=False), (self.folder.absolute(),)

    @property
    def config(self) -> BankConfig:
        """What its vectors and codes mean."""
        return self.manifest.config

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, number: int) -> BankDocument:
        return _document(self._table, number)

    def vectors(self, numbers: Sequence[int]) -> Float32[np.ndarray, "doc width"]:
        """The vectors of some documents."""
        return self._index.vectors.take(np.asarray(numbers, dtype=np.int64))

    def search(
        self, queries: Float[np.ndarray, "query width"], count: int
    ) -> tuple[Float32[np.ndarray, "query _"], Int64[np.ndarray, "query _"]]:
        """Relevances, descending, and numbers of the `count` nearest documents."""
        return self._index.search(queries, count)

    def tally(self, column: str) -> Counter[str]:
        """How many documents there are of each source, licence or author."""
        pairs = self._table.column(column).value_counts().to_pylist()
        return Counter({pair["values"]: pair["counts"] for pair in pairs})


class BankWriter:
    """Adds documents to a bank, new or old; one writer a folder.

    No other may write there until it has finished, or is gone.

    Args:
        folder: made if missing.
        config: what vectors and codes mean; that of the bank if it is there.
        settings: how its index is chosen; by default as it was, or the defaults.

    Raises:
        DataError: the bank there was built with other encoders, or has a writer.
        ShardCorrupt: one of its files is damaged, or the manifest is gone.
    """

    def __init__(
        self,
        folder: str | Path,
        config: BankConfig,
        settings: IndexSettings | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.keys: dict[str, int] = {}  # of the documents, and their numbers
        self._lock = lock(self.folder)
        try:
            self._manifest = self._begin(config, settings)
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, config: BankConfig, settings: IndexSettings | None) -> Manifest:
        if not (self.folder / MANIFEST).exists():
            check_none_lost(self.folder)
            manifest = Manifest(config=config, settings=settings or IndexSettings())
            write_manifest(self.folder, manifest)
            return manifest
        manifest = read_manifest(self.folder)
        if other := _difference(manifest.config, config):
            raise DataError(
                f"{self.folder} was built with {other}; give another folder"
            )
        settings = settings or manifest.settings
        complete = manifest.complete and settings == manifest.settings
        sweep(self.folder, manifest)
        bank = _opened(self.folder, manifest, verify=False)
        names = bank.table.column("key").to_pylist()
        self.keys.update((key, number) for number, key in enumerate(names))
        return replace(manifest, settings=settings, complete=complete)

    @property
    def complete(self) -> bool:
        """Whether it was finished, and nothing added since."""
        return self._manifest.complete

    def lookup(self) -> Callable[[str], BankDocument]:
        """What gives the document of one of its keys."""
        table = _opened(self.folder, self._manifest, verify=False).table
        return lambda key: _document(table, self.keys[key])

    def add(
        self, documents: Sequence[BankDocument], vectors: Float[np.ndarray, "doc width"]
    ) -> int:
        """Write those that are not there yet as one shard; how many these were.

        Raises:
            DataError: vectors are of another width or not finite, or codes are not of
                the bank's image tokenizer.
        """
        _check(documents, vectors, self._manifest.config)
        fresh: dict[str, int] = {}
        for row, document in enumerate(documents):
            if document.key not in self.keys:
                fresh.setdefault(document.key, row)
        if not fresh:
            return 0
        rows = list(fresh.values())
        chosen = [documents[row] for row in rows]
        shard = _write_shard(
            self.folder, _next(self._manifest), chosen, np.asarray(vectors)[rows]
        )
        first, shards = self._manifest.count, (*self._manifest.shards, shard)
        self._put(replace(self._manifest, shards=shards, complete=False))
        self.keys.update((key, first + place) for place, key in enumerate(fresh))
        return len(fresh)

    def finish(
        self,
        *,
        part: tuple[int, int] | None = None,
        workers: Workers = here,
        on_progress: Progress | None = None,
    ) -> Manifest:
        """Build or extend the index, declare the bank complete and let others write.

        Args:
            part: which of how many, from 0, if it is to be merged; it gets no index.
            workers: who finds the lists and codes of the vectors in an IVF-PQ index.
            on_progress: called with "index" and the vectors done.

        Raises:
            DataError: there is no document.
        """
        manifest = self._manifest
        if manifest.count == 0:
            raise DataError(f"{self.folder} would be empty; no document was added")
        if part is not None:
            bare = replace(manifest, index=None, index_file=None, indexed=0)
            self._put(replace(bare, complete=True, part=part))
        elif not manifest.complete or manifest.index is None:
            self._manifest = _finished(self.folder, manifest, on_progress, workers)
        self._lock.release()
        return self._manifest

    def _put(self, manifest: Manifest) -> None:
        assert self._lock.is_locked, "this writer has finished; open another"
        write_manifest(self.folder, manifest)
        self._manifest = manifest  # not before: what fails here may be tried again


def remove(
    folder: str | Path,
    keys: Collection[str],
    *,
    on_progress: Progress | None = None,
) -> Manifest:
    """Take documents out of a finished bank.

    Raises:
        RequestError: one of the keys is not there, or none would be left.
        DataError: the bank was not finished, is a part to be merged, or has a writer.
    """
    folder = Path(folder)
    read_manifest(folder)  # a folder without a bank stays as it is
    with lock(folder):
        return _without(folder, set(keys), on_progress)


def _without(folder: Path, wanted: set[str], on_progress: Progress | None) -> Manifest:
    manifest = read_manifest(folder)
    if not manifest.complete or manifest.index is None:
        raise DataError(f"{folder} has no index yet; finish or merge it first")
    table, vectors = _opened(folder, manifest, verify=True)
    names = table.column("key").to_pylist()
    if missing := sorted(wanted - set(names)):
        raise RequestError(f"{folder} has no document {missing[0]!r}")
    if len(wanted) == len(names):
        raise RequestError(f"{folder} would be empty; delete the folder instead")
    shards: list[Shard] = []
    start = 0
    for shard in manifest.shards:
        numbers = range(start, start + shard.count)
        kept = [number for number in numbers if names[number] not in wanted]
        start += shard.count
        if len(kept) < shard.count and kept:
            documents = _documents(table.take(kept))
            taken = vectors.take(np.asarray(kept, dtype=np.int64))
            number = _next(manifest) + len(shards)  # above all that is there
            shard = _write_shard(folder, number, documents, taken)
        if kept:
            shards.append(shard)
    left = replace(manifest, shards=tuple(shards), index=None, indexed=0)
    return _finished(folder, left, on_progress)


def merge(
    parts: Sequence[str | Path],
    folder: str | Path,
    *,
    settings: IndexSettings | None = None,
    on_progress: Progress | None = None,
) -> Manifest:
    """One bank of several that were built apart; no vector is computed again.

    Files are linked where the file system can, else copied.

    Raises:
        DataError: the parts differ in their encoders, share a document, or the folder
            holds a bank or has a writer.
        ShardCorrupt: a file of a part is damaged, or the folder has lost its manifest.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        return _merged([*map(Path, parts)], folder, settings, on_progress)


def _merged(
    parts: Sequence[Path],
    folder: Path,
    settings: IndexSettings | None,
    on_progress: Progress | None,
) -> Manifest:
    if not (folder / MANIFEST).exists():
        check_none_lost(folder)
    elif read_manifest(folder).count:  # a killed merge left one that names nothing
        raise DataError(f"{folder} holds a bank already; give another folder")
    if not parts:
        raise DataError("no parts to merge; name the folders of at least one bank")
    manifests = [read_manifest(part) for part in parts]
    first = manifests[0]
    owner: dict[str, Path] = {}
    for path, manifest in zip(parts, manifests, strict=True):
        if other := _difference(first.config, manifest.config):
            raise DataError(f"{parts[0]} was built with {other} than {path}")
        if not manifest.complete:
            raise DataError(f"{path} was not finished; run what was building it again")
        table = _opened(path, manifest, verify=True).table
        for key in table.column("key").to_pylist():
            if key in owner:
                raise DataError(f"{path} and {owner[key]} both hold document {key!r}")
            owner[key] = path
    whole = Manifest(config=first.config, settings=settings or first.settings)
    write_manifest(folder, whole)  # first, or what a kill leaves would be nobody's
    shards: list[Shard] = []
    for path, manifest in zip(parts, manifests, strict=True):
        for shard in manifest.shards:
            number = len(shards)
            names = (f"documents-{number:05d}.arrow", f"vectors-{number:05d}.npy")
            pair = (shard.documents, shard.vectors)
            files = [
                write_file(folder, name, partial(_link, path / file.name))
                for name, file in zip(names, pair, strict=True)
            ]
            shards.append(
                Shard(count=shard.count, documents=files[0], vectors=files[1])
            )
    return _finished(folder, replace(whole, shards=tuple(shards)), on_progress)


def problems(folder: str | Path) -> Iterator[str]:
    """What is wrong with a bank, a line each; every file is read whole."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    broken = [text for file in manifest.files if (text := damage(folder, file))]
    yield from broken
    if broken:
        return
    bank = _opened(folder, manifest, verify=False)
    if not manifest.complete:
        yield f"{folder} was not finished; run what was building it again"
    elif manifest.index is not None:
        try:
            MemoryBank.open(folder, verify=False)
        except DataError as error:
            yield str(error)
    names = Counter(bank.table.column("key").to_pylist())
    yield from (
        f"document {key!r} is there {n} times" for key, n in names.items() if n > 1
    )
    number = 0
    for block in bank.vectors.blocks():
        lengths = np.linalg.norm(block, axis=1)
        for row in np.flatnonzero(~(np.abs(lengths - 1) < 1e-2)):
            key = bank.table.column("key")[number + int(row)].as_py()
            yield f"the vector of {key!r} has length {lengths[row]:.3f}, not 1"
        number += len(block)
    config = manifest.config
    for row in bank.table.select(["key", "codes"]).to_pylist():
        codes = row["codes"]
        if len(codes) != config.codes_per_image or max(codes) >= config.codebook_size:
            yield f"{row['key']!r} has codes of another image tokenizer"


def _opened(folder: Path, manifest: Manifest, *, verify: bool) -> _Opened:
    for file in manifest.files:
        if reason := damage(folder, file, verify=verify):
            raise ShardCorrupt(reason)
    tables, arrays = [], []
    for shard in manifest.shards:
        path = folder / shard.documents.name
        table = _read(path, _table)
        vectors = _read(folder / shard.vectors.name, partial(np.load, mmap_mode="r"))
        shape = (shard.count, manifest.config.width)
        if len(table) != shard.count or vectors.shape != shape:
            raise DataError(
                f"{path} has {len(table)} documents and vectors of shape "
                f"{list(vectors.shape)}, the manifest says {list(shape)}; build the "
                "bank again"
            )
        tables.append(table)
        arrays.append(vectors)
    none = np.zeros((0, manifest.config.width), dtype=np.float16)
    return _Opened(
        pa.concat_tables(tables) if tables else SCHEMA.empty_table(),
        Vectors(arrays or [none]),
    )


def _document(table: pa.Table, number: int) -> BankDocument:
    return _documents(table.slice(number, 1))[0]


def _documents(table: pa.Table) -> list[BankDocument]:
    rows = table.to_pylist()
    return [BankDocument(**row | {"codes": tuple(row["codes"])}) for row in rows]


def _read(path: Path, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ShardCorrupt(f"{path} is damaged; build the bank again") from error


def _table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _finished(
    folder: Path,
    manifest: Manifest,
    on_progress: Progress | None,
    workers: Workers = here,
) -> Manifest:
    """The manifest, complete and written, after its index was built or extended."""
    vectors = _opened(folder, manifest, verify=False).vectors
    old = manifest.index_file
    if manifest.index is not None and old is not None:
        if reason := damage(folder, old):
            raise ShardCorrupt(reason)
        covered = Vectors(_first(vectors.parts, manifest.indexed))
        present = VectorIndex.load(
            covered, manifest.index, folder / old.name, writable=True
        )
        built = present.extended(vectors, manifest.settings, on_progress)
    else:
        built = VectorIndex.build(vectors, manifest.settings, on_progress, workers)
    file: File | None = None
    if built.report.choice.kind != "flat":
        number = next_number([old.name] if old else [])
        file = write_file(folder, f"index-{number:05d}.faiss", built.save)
    done = replace(
        manifest,
        complete=True,
        part=None,
        index=built.report,
        index_file=file,
        indexed=manifest.count,
    )
    write_manifest(folder, done)
    return done


def _first(parts: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """The parts that hold the first `count` rows; documents come by whole shards."""
    taken: list[np.ndarray] = []
    for part in parts:
        if sum(map(len, taken)) == count:
            break
        taken.append(part)
    return taken


def _check(
    documents: Sequence[BankDocument],
    vectors: Float[np.ndarray, "doc width"],
    config: BankConfig,
) -> None:
    if vectors.shape != (len(documents), config.width):
        raise DataError(
            f"{len(documents)} documents with vectors of shape {list(vectors.shape)}; "
            f"the bank's are {config.width} wide"
        )
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    for document, length in zip(documents, lengths, strict=True):
        if not abs(length - 1) < 1e-2:
            raise DataError(
                f"the vector of {document.key!r} has length {length:.3f}, not 1"
            )
        wrong = [
            code for code in document.codes if not 0 <= code < config.codebook_size
        ]
        if wrong or len(document.codes) != config.codes_per_image:
            raise DataError(
                f"{document.key!r} has {len(document.codes)} codes of "
                f"{config.codes_per_image}"
                + (f", among them {wrong[0]}" if wrong else "")
            )


def _difference(one: BankConfig, other: BankConfig) -> str:
    """What of two configs differs, in words; "" if nothing does."""
    left, right = asdict(one), asdict(other)
    words = {
        "encoder": "another bi-encoder",
        "image_tokenizer": "another image tokenizer",
    }
    for name, value in left.items():
        if value != right[name]:
            return words.get(name, f"another {name} ({value}, not {right[name]})")
    return ""


def _next(manifest: Manifest) -> int:
    return next_number([shard.vectors.name for shard in manifest.shards])


def _write_shard(
    folder: Path,
    number: int,
    documents: Sequence[BankDocument],
    vectors: Float[np.ndarray, "doc width"],
) -> Shard:
    table = pa.Table.from_pylist([asdict(one) for one in documents], SCHEMA)

    def write_table(path: Path) -> None:
        with (
            pa.OSFile(str(path), "wb") as sink,
            pa.ipc.new_file(sink, SCHEMA) as writer,
        ):
            writer.write_table(table, max_chunksize=1024)

    def write_vectors(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, vectors.astype(np.float16))

    return Shard(
        count=len(documents),
        documents=write_file(folder, f"documents-{number:05d}.arrow", write_table),
        vectors=write_file(folder, f"vectors-{number:05d}.npy", write_vectors),
    )


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
