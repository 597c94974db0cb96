"""Search in a memory bank beside plain FAISS: recall, queries per second, build time.

python benchmarks/memory_bank.py [--sizes 10000,100000,1000000] [--peer PYTHON]

Vectors are synthetic: 128 wide, about 14,000 clusters as the corpus has concepts. Plain
FAISS is IndexFlatIP below 50,000 vectors, and above an index of the same kind that ours
chose, with the same depth. Calls alternate, medians of `--rounds`. With `--peer`, the
path of a Python that has autofaiss, that builds an index of the same vectors.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import faiss
import numpy as np

from cm3leon.retrieval.vector_index import (
    IndexSettings,
    VectorIndex,
    Vectors,
    exhaustive,
)

WIDTH = 128
QUERIES = 64  # in one batch
AUTOFAISS = """
import sys, time, numpy as np
from autofaiss import build_index
vectors = np.load(sys.argv[1]).astype("float32")
began = time.perf_counter()
build_index(vectors, save_on_disk=False, metric_type="ip", verbose=40,
            max_index_memory_usage="4G", current_memory_available="8G")
print(time.perf_counter() - began)
"""


def synthetic(count: int) -> np.ndarray:
    """Unit vectors around clusters, fp16."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(14_000, WIDTH)).astype(np.float32)
    made = np.empty((count, WIDTH), dtype=np.float16)
    for start in range(0, count, 100_000):
        size = min(100_000, count - start)
        rows = centres[random.integers(len(centres), size=size)]
        rows = rows + 0.7 * random.normal(size=rows.shape).astype(np.float32)
        made[start : start + size] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return made


def timed(act: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def plain_index(vectors: np.ndarray, ours: VectorIndex) -> tuple[faiss.Index, float]:
    """FAISS's own index of the same kind, and the seconds it took to build."""
    choice = ours.report.choice
    factory = "Flat" if choice.kind == "flat" else choice.factory
    began = time.perf_counter()
    index = faiss.index_factory(WIDTH, factory, faiss.METRIC_INNER_PRODUCT)
    rows = vectors.astype(np.float32)
    if not index.is_trained:
        index.train(rows)
    index.add(rows)
    if choice.kind == "hnsw":
        index.hnsw.efSearch = ours.report.depth
    elif choice.kind == "ivfpq":
        index.nprobe = ours.report.depth
    return index, time.perf_counter() - began


def autofaiss_seconds(python: str, vectors: np.ndarray) -> float:
    """What autofaiss takes to build an index, in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.npy"
        np.save(file, vectors)
        command = [python, "-c", AUTOFAISS, str(file)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(said.stdout.split()[-1])


def search_seconds(
    ours: VectorIndex, plain: faiss.Index, queries: np.ndarray, rounds: int
) -> list[tuple[float, float]]:
    """Seconds of one batch, ours and plain, in turn."""
    return [
        (
            timed(lambda: ours.search(queries, 10)),
            timed(lambda: plain.search(queries, 10)),
        )
        for _ in range(rounds)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peer", default=None)
    arguments = parser.parse_args()
    print(
        "| vectors | index | recall@10 | queries/s | plain FAISS | time over plain "
        "| build, s | plain, s | autofaiss, s |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for size in map(int, arguments.sizes.split(",")):
        stored = synthetic(size)
        vectors = Vectors([stored])
        began = time.perf_counter()
        ours = VectorIndex.build(vectors, IndexSettings())
        build = time.perf_counter() - began
        plain, plain_build = plain_index(stored, ours)
        random = np.random.default_rng(1)
        queries = vectors.take(np.sort(random.choice(size, QUERIES, replace=False)))
        queries += 0.02 * random.normal(size=queries.shape).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        _, exact = exhaustive(vectors, queries, 10)
        _, found = ours.search(queries, 10)
        recall = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]
        )
        pairs = search_seconds(ours, plain, queries, arguments.rounds)
        mine, theirs = median(p[0] for p in pairs), median(p[1] for p in pairs)
        ratio = median(p[0] / p[1] for p in pairs)
        peer = autofaiss_seconds(arguments.peer, stored) if arguments.peer else None
        print(
            f"| {size:,} | {ours.report.choice.factory} | {recall:.1%} "
            f"| {QUERIES / mine:,.0f} | {QUERIES / theirs:,.0f} | {ratio - 1:+.1%} "
            f"| {build:.1f} | {plain_build:.1f} | {f'{peer:.1f}' if peer else '-'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
