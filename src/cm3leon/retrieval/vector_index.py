"""The FAISS index over a bank's vectors: which kind, and how well it finds.

    flat    every vector is compared; exact
    hnsw    a graph of neighbours over the vectors; the vectors are in memory
    ivfpq   vectors in lists, each in a few bytes; best candidates compared again;
            trained on a sample, then any number of machines find lists and bytes

The vectors themselves are stored once, in the bank's fp16 files. A flat index is not
stored at all: on opening, the vectors are put into FAISS's scalar quantizer "SQfp16",
which multiplies fp32 queries with fp16 vectors. Compared with IndexFlatIP it gives the
same neighbours and relevances (both see what is stored), takes half the memory and is
1.5 times as fast. Of an HNSW index only the graph is stored. Of IVF-PQ the lists are
stored, and memory-mapped; it searches for `CANDIDATES` times as many as wanted and
orders these by their fp16 vectors, so relevances are exact inner products in all three.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth
from jaxtyping import Float, Float16, Float32, Int64, UInt8

from cm3leon.errors import ConfigError, DataError, ShardCorrupt
from cm3leon.randomness import generator
from cm3leon.workers import Workers, here

LINKS = 32  # of a vector in the HNSW graph; twice as many in its lowest layer
FEWEST = 1_000  # vectors worth an approximate index; 8-bit PQ cannot do with 255
CANDIDATES = 10  # that IVF-PQ compares again, for each neighbour asked for
DEEPEST = 1_024  # efSearch or nprobe at most
BLOCK = 65_536  # vectors widened to fp32 at once
QUERIES = 256  # to measure recall

Progress = Callable[[str, int], object]


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How an index is chosen. Checked once, here."""

    exact_below: int = 50_000  # up to so many vectors all are compared
    memory_bytes: int = 4 << 30  # for an index above that
    recall: float = 0.95  # of the ten nearest, which search goes deeper to reach

    def __post_init__(self) -> None:
        if self.exact_below < FEWEST:
            raise ConfigError(
                f"exact_below is {self.exact_below}, below {FEWEST}: so few vectors "
                "are searched faster without an index"
            )
        if not 0 < self.recall <= 1:
            raise ConfigError(f"recall is {self.recall}, outside (0, 1]")


@dataclass(frozen=True, kw_only=True)
class IndexChoice:
    """A kind of index and its sizes."""

    kind: Literal["flat", "hnsw", "ivfpq"]
    lists: int = 0  # of IVF
    bytes_per_vector: int = 0  # of PQ

    @property
    def factory(self) -> str:
        """It in the words of `faiss.index_factory`."""
        if self.kind == "flat":
            return "SQfp16"
        if self.kind == "hnsw":
            return f"HNSW{LINKS},SQfp16"
        return f"IVF{self.lists},PQ{self.bytes_per_vector}"


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """An index that was built, how deep it searches and what it reaches so."""

    choice: IndexChoice
    depth: int = 0  # efSearch of HNSW, nprobe of IVF
    recall_at_10: float = 1.0


def choose_index(
    count: int, width: int, memory_bytes: int, *, exact_below: int = 50_000
) -> IndexChoice:
    """The kind of index for `count` vectors: the best that fits the memory.

    >>> choose_index(36_779, 128, 2**32).factory
    'SQfp16'
    >>> choose_index(1_000_000, 128, 2**32).factory
    'HNSW32,SQfp16'
    >>> choose_index(340_000_000, 512, 2**36).factory
    'IVF65536,PQ128'

    Args:
        count: vectors to search.
        width: of a vector.
        memory_bytes: what an index may take once it is open.
        exact_below: up to so many all are compared, whatever the memory.

    Raises:
        ConfigError: none fits.
    """
    if count <= exact_below:
        return IndexChoice(kind="flat")
    # fp16 vector; links of the lowest layer, of the others, offset, level
    if count * (2 * width + 8 * LINKS + 6 + 12) <= memory_bytes:
        return IndexChoice(kind="hnsw")
    # FAISS asks for 39 vectors a list to train on
    lists = 2 ** int(math.log2(max(1, min(65_536, 4 * math.sqrt(count), count / 39))))
    sizes = [width // n for n in (2, 4, 8, 16, 32) if width % n == 0] or [1]
    for size in sizes:
        needed = count * (size + 8) + 4 * width * lists
        if needed <= memory_bytes:
            return IndexChoice(kind="ivfpq", lists=lists, bytes_per_vector=size)
    raise ConfigError(
        f"an index of {count} vectors of width {width} takes {needed} bytes at least, "
        f"memory_bytes is {memory_bytes}; raise it"
    )


class Vectors:
    """The rows of several fp16 arrays, usually memory-mapped, as one array."""

    def __init__(self, parts: Sequence[Float16[np.ndarray, "_ width"]]) -> None:
        self.parts = list(parts)
        self.width = int(self.parts[0].shape[1])
        self._starts = np.cumsum([0, *map(len, self.parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, numbers: Int64[np.ndarray, " doc"]) -> Float32[np.ndarray, "doc w"]:
        """Some rows, in fp32."""
        rows = np.empty((len(numbers), self.width), dtype=np.float32)
        owners = np.searchsorted(self._starts, numbers, side="right") - 1
        for owner in np.unique(owners):
            mine = owners == owner
            rows[mine] = self.parts[owner][numbers[mine] - self._starts[owner]]
        return rows

    def blocks(self) -> Iterator[Float32[np.ndarray, "_ w"]]:
        """All rows in order, in fp32, some at a time."""
        for part in self.parts:
            for start in range(0, len(part), BLOCK):
                yield part[start : start + BLOCK].astype(np.float32)


class VectorIndex:
    """A FAISS index and the vectors it was made of."""

    def __init__(self, vectors: Vectors, report: IndexReport, index: Any) -> None:
        self.vectors = vectors
        self.report = report
        self.index = index
        self._flat: Any = None
        self._go(report.depth)

    @classmethod
    def build(
        cls,
        vectors: Vectors,
        settings: IndexSettings,
        on_progress: Progress | None = None,
        workers: Workers = here,
    ) -> "VectorIndex":
        """The index that suits the vectors, its recall measured.

        Args:
            vectors: at least one.
            settings: how to choose.
            on_progress: called with "index" and the vectors done.
            workers: who finds the lists and codes of vectors, once IVF-PQ is trained
                on a sample of them.
        """
        choice = choose_index(
            len(vectors),
            vectors.width,
            settings.memory_bytes,
            exact_below=settings.exact_below,
        )
        index: Any = faiss.index_factory(
            vectors.width, choice.factory, faiss.METRIC_INNER_PRODUCT
        )
        if choice.kind == "ivfpq":
            index.cp.max_points_per_centroid = 64
            index.pq.cp.max_points_per_centroid = 64
            # orders codes for a search by Hamming distance, a second for each byte
            index.do_polysemous_training = False
            wanted = min(len(vectors), 64 * max(choice.lists, 256))
            index.train(vectors.take(_sample(len(vectors), wanted)))
        made = cls(vectors, IndexReport(choice=choice), index)
        made._take_in(vectors, on_progress, workers)
        made._measure(settings.recall)
        return made

    def extended(
        self,
        vectors: Vectors,
        settings: IndexSettings,
        on_progress: Progress | None = None,
    ) -> "VectorIndex":
        """The index of more vectors, of which the first are the present ones.

        The present index grows, unless another now suits better. It must have been
        loaded `writable`, and is used up.
        """
        choice = choose_index(
            len(vectors),
            vectors.width,
            settings.memory_bytes,
            exact_below=settings.exact_below,
        )
        if choice != self.report.choice:
            return VectorIndex.build(vectors, settings, on_progress)
        done = len(self.vectors)
        fresh = Vectors(
            [vectors.take(np.arange(done, len(vectors))).astype(np.float16)]
        )
        self.vectors = vectors
        self._take_in(fresh, on_progress)
        self._measure(settings.recall)
        return self

    def save(self, path: Path) -> None:
        """Write what the vectors do not tell; nothing to be asked of a flat index."""
        skip = faiss.IO_FLAG_SKIP_STORAGE if self.report.choice.kind == "hnsw" else 0
        faiss.write_index(self.index, str(path), skip)  # type: ignore[call-overload]

    @classmethod
    def load(
        cls,
        vectors: Vectors,
        report: IndexReport,
        path: Path | None,
        *,
        writable: bool = False,
    ) -> "VectorIndex":
        """What `save` wrote, around the vectors it was made of.

        Raises:
            ShardCorrupt: FAISS cannot read it.
            DataError: it is of other vectors.
        """
        width, kind = vectors.width, report.choice.kind
        flat = faiss.index_factory(width, "SQfp16", faiss.METRIC_INNER_PRODUCT)
        index: Any = flat if kind == "flat" else _read(path, mapped=not writable)
        types = {"hnsw": faiss.IndexHNSWSQ, "ivfpq": faiss.IndexIVFPQ}
        if kind != "flat" and not isinstance(index, types[kind]):
            raise DataError(f"{path} holds no {kind} index; build the bank again")
        if index.d != width:
            raise DataError(
                f"{path} has vectors of width {index.d}, the bank {width}; build the "
                "bank again"
            )
        if kind != "flat" and index.ntotal != len(vectors):
            raise DataError(
                f"{path} has {index.ntotal} vectors, the bank {len(vectors)} "
                "documents; build the bank again"
            )
        if kind != "ivfpq":
            for block in vectors.blocks():
                flat.add(block)
        if kind == "hnsw":
            index.storage = flat
        made = cls(vectors, report, index)
        made._flat = flat  # the graph borrows it: Python must not free it
        return made

    def search(
        self, queries: Float[np.ndarray, "query width"], count: int
    ) -> tuple[Float32[np.ndarray, "query _"], Int64[np.ndarray, "query _"]]:
        """Relevances, descending, and numbers of the nearest vectors.

        Where an approximate index comes back with too few, all are compared.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        count = min(count, len(self.vectors))
        if self.report.choice.kind == "flat":
            relevances, numbers = self.index.search(queries, count)
            return relevances, numbers
        if self.report.choice.kind == "hnsw":
            relevances, numbers = self.index.search(queries, count)
        else:
            relevances, numbers = self._compared_again(queries, count)
        short = (numbers < 0).any(axis=1)
        if short.any():
            again = exhaustive(self.vectors, queries[short], count)
            relevances[short], numbers[short] = again
        return relevances, numbers

    def _compared_again(
        self, queries: Float32[np.ndarray, "query width"], count: int
    ) -> tuple[Float32[np.ndarray, "query _"], Int64[np.ndarray, "query _"]]:
        wanted = min(CANDIDATES * count, len(self.vectors))
        _, numbers = self.index.search(queries, wanted)
        rows = self.vectors.take(np.maximum(numbers, 0).ravel())
        rows = rows.reshape(*numbers.shape, self.vectors.width)
        relevances = np.matmul(rows, queries[:, :, None])[:, :, 0]
        relevances[numbers < 0] = -np.inf
        best = np.argsort(-relevances, axis=1, kind="stable")[:, :count]
        return (
            np.take_along_axis(relevances, best, axis=1),
            np.take_along_axis(numbers, best, axis=1),
        )

    def _take_in(
        self, vectors: Vectors, on_progress: Progress | None, workers: Workers = here
    ) -> None:
        if self.report.choice.kind == "ivfpq":
            added = workers(_Coder(self.index), [*map(_place, vectors.parts)])
            take = self.index.add_sa_codes
        else:
            added, take = vectors.blocks(), self.index.add
        for some in added:
            take(some)
            if on_progress:
                on_progress("index", int(self.index.ntotal))

    def _go(self, depth: int) -> None:
        """Search so deep."""
        if self.report.choice.kind == "hnsw":
            self.index.hnsw.efSearch = depth
        elif self.report.choice.kind == "ivfpq":
            self.index.nprobe = depth

    def _measure(self, wanted: float) -> None:
        """Go deeper until `wanted` of the ten nearest are found; report what is.

        Queries are vectors of the bank; each finds itself, which does not count.
        """
        choice = self.report.choice
        if choice.kind == "flat":
            self.report = IndexReport(choice=choice)
            return
        queries = self.vectors.take(_sample(len(self.vectors), QUERIES))
        tenth = exhaustive(self.vectors, queries, 11)[0][:, -1:]
        deepest = choice.lists if choice.kind == "ivfpq" else DEEPEST
        depth, recall = min(8, deepest), 0.0
        while recall < wanted and depth < min(deepest, DEEPEST):
            depth = min(2 * depth, deepest, DEEPEST)
            self._go(depth)
            found = self.search(queries, 11)[0] >= tenth - 1e-6  # ties are as good
            recall = float(np.mean(np.maximum(found.sum(axis=1) - 1, 0) / 10))
        self.report = IndexReport(choice=choice, depth=depth, recall_at_10=recall)


@dataclass(frozen=True)
class _Coder:
    """Gives the list and the PQ code of every vector of an array.

    Added to the index they make what adding the vectors would, byte for byte.
    """

    index: Any  # trained

    def __call__(
        self, place: Path | Float16[np.ndarray, "_ width"]
    ) -> UInt8[np.ndarray, "_ bytes"]:
        part = np.load(place, mmap_mode="r") if isinstance(place, Path) else place
        blocks = [self.index.sa_encode(block) for block in Vectors([part]).blocks()]
        return np.concatenate(blocks)


def _place(
    part: Float16[np.ndarray, "_ width"],
) -> Path | Float16[np.ndarray, "_ width"]:
    """Where an array is, if it is a whole mapped file: its numbers need not travel."""
    if not isinstance(part, np.memmap) or part.filename is None:
        return part
    path = Path(str(part.filename)).absolute()
    return path if len(np.load(path, mmap_mode="r")) == len(part) else part


def exhaustive(
    vectors: Vectors, queries: Float32[np.ndarray, "query width"], count: int
) -> tuple[Float32[np.ndarray, "query _"], Int64[np.ndarray, "query _"]]:
    """What `search` is measured by: every vector compared, in little memory."""
    relevances, numbers = knn_ground_truth(
        queries, vectors.blocks(), count, faiss.METRIC_INNER_PRODUCT, ngpu=0
    )
    return relevances, numbers


def _sample(count: int, wanted: int) -> Int64[np.ndarray, " doc"]:
    """Numbers below `count`, ascending, the same on every run."""
    random = generator(0, "vector index", count)
    return np.sort(random.choice(count, min(wanted, count), replace=False))


def _read(path: Path | None, *, mapped: bool) -> Any:
    if path is None:
        raise DataError("the manifest names no index file; build the bank again")
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise ShardCorrupt(f"{path} is no FAISS index; build the bank again") from error
