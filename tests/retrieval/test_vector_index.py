import faiss
import numpy as np
import pytest

from cm3leon.errors import ConfigError, DataError, ShardCorrupt
from cm3leon.retrieval.vector_index import (
    IndexReport,
    IndexSettings,
    VectorIndex,
    Vectors,
    choose_index,
    exhaustive,
)

SETTINGS = {
    "flat": IndexSettings(exact_below=5_000),
    "hnsw": IndexSettings(exact_below=1_000),
    "ivfpq": IndexSettings(exact_below=1_000, memory_bytes=100_000),
}
KINDS = list(SETTINGS)
APPROXIMATE = KINDS[1:]
NEAR = 1e-5  # sums of sixteen products, in another order


def parts(vectors, *ends):
    """The same vectors as fp16 arrays that end there."""
    pieces = np.split(vectors.astype(np.float16), ends)
    return Vectors(pieces)


@pytest.fixture(scope="module")
def vectors(clustered):
    return clustered(1_600)


@pytest.fixture(scope="module")
def queries(clustered):
    return clustered(100, seed=1)


@pytest.fixture(scope="module")
def built(vectors):
    """An index of each kind; nobody may extend it."""
    pieces = parts(vectors, 700, 701)
    return {kind: VectorIndex.build(pieces, SETTINGS[kind]) for kind in KINDS}


def check(vectors, queries, answer, count):
    """Exact relevances, descending, of different vectors; the share of the nearest."""
    relevances, numbers = answer
    products = queries @ vectors.T
    assert relevances.shape == numbers.shape == (len(queries), count)
    found = np.take_along_axis(products, numbers, axis=1)
    np.testing.assert_allclose(relevances, found, rtol=0, atol=NEAR)
    assert (np.diff(relevances, axis=1) <= 0).all()
    assert all(len(set(row)) == count for row in numbers.tolist())
    last = -np.sort(-products, axis=1)[:, count - 1 : count]
    return float(np.mean(relevances >= last - NEAR))


@pytest.mark.parametrize("count", [1, 10, 1_600])
def test_a_flat_index_finds_what_comparing_all_finds(built, vectors, queries, count):
    answer = built["flat"].search(queries, count)
    assert built["flat"].report.recall_at_10 == 1
    assert check(vectors, queries, answer, count) == 1


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_approximate_index_reaches_the_recall_asked_for(
    built, vectors, queries, kind
):
    report = built[kind].report
    assert report.choice.kind == kind
    assert report.depth > 0
    assert report.recall_at_10 >= SETTINGS[kind].recall
    assert check(vectors, vectors, built[kind].search(vectors, 10), 10) >= 0.95
    assert check(vectors, queries, built[kind].search(queries, 10), 10) >= 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_of_the_index_finds_itself(built, vectors, kind):
    relevances, _ = built[kind].search(vectors, 1)
    assert np.mean(relevances[:, 0] > 1 - 2e-3) > 0.99


def test_a_recall_that_cannot_be_reached_is_reported_as_it_is(vectors, monkeypatch):
    monkeypatch.setattr("cm3leon.retrieval.vector_index.CANDIDATES", 1)
    index = VectorIndex.build(parts(vectors), SETTINGS["ivfpq"])
    assert index.report.depth == index.report.choice.lists
    assert 0.2 < index.report.recall_at_10 < SETTINGS["ivfpq"].recall
    measured = check(vectors, vectors, index.search(vectors, 11), 11)
    assert measured == pytest.approx(index.report.recall_at_10, abs=0.1)


def test_more_recall_is_searched_for_deeper(clustered):
    pieces = parts(clustered(3_000, width=64, spread=1.0))
    low, high = (
        VectorIndex.build(pieces, IndexSettings(exact_below=1_000, recall=recall))
        for recall in (0.3, 0.99)
    )
    assert low.report.depth < high.report.depth
    assert 0.3 <= low.report.recall_at_10 < 0.99 <= high.report.recall_at_10


@pytest.mark.parametrize("kind", KINDS)
def test_more_than_there_are_is_all_there_are(built, vectors, queries, kind):
    answer = built[kind].search(queries[:3], 9_999)
    assert check(vectors, queries[:3], answer, len(vectors)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_queries_need_not_be_fp32_or_contiguous(built, queries, kind):
    relevances, numbers = built[kind].search(queries, 5)
    again = built[kind].search(np.asfortranarray(queries.astype(np.float64)), 5)
    np.testing.assert_array_equal(again[0], relevances)
    np.testing.assert_array_equal(again[1], numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_loaded_answers_as_what_was_saved(
    built, vectors, queries, kind, tmp_path
):
    index = built[kind]
    index.save(tmp_path / "index.faiss")
    for writable in (False, True):
        again = VectorIndex.load(
            parts(vectors, 1_000),
            index.report,
            tmp_path / "index.faiss",
            writable=writable,
        )
        assert again.report == index.report
        for one, other in zip(
            again.search(queries, 10), index.search(queries, 10), strict=True
        ):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_vectors_are_not_stored_a_second_time(built, vectors, kind, tmp_path):
    built[kind].save(tmp_path / "index.faiss")
    storage = faiss.serialize_index(built["flat"].index).nbytes
    whole = faiss.serialize_index(built[kind].index).nbytes
    if kind == "hnsw":
        size = (tmp_path / "index.faiss").stat().st_size
        assert size == pytest.approx(whole - storage, abs=100)
    else:
        assert whole < storage


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved", [False, True])
def test_an_index_that_grew_is_one_built_at_once(
    vectors, queries, kind, saved, tmp_path
):
    whole = parts(vectors, 1_500)
    index = VectorIndex.build(Vectors(whole.parts[:1]), SETTINGS[kind])
    if saved:
        index.save(tmp_path / "index.faiss")
        path = tmp_path / "index.faiss"
        index = VectorIndex.load(index.vectors, index.report, path, writable=True)
    grown = index.extended(whole, SETTINGS[kind])
    assert (grown is index) == (grown.report.choice == index.report.choice)
    assert grown.report.choice.kind == kind
    assert grown.report.recall_at_10 >= SETTINGS[kind].recall
    assert grown.index.ntotal == len(vectors)
    recall = check(vectors, queries, grown.search(queries, 10), 10)
    assert recall == 1 if kind == "flat" else recall >= 0.9
    relevances, numbers = grown.search(vectors[1_500:], 1)
    assert np.mean(relevances[:, 0] > 1 - 2e-3) > 0.99
    assert np.mean(numbers[:, 0] >= 1_500) > 0.9
    grown.save(tmp_path / "grown.faiss")
    again = VectorIndex.load(whole, grown.report, tmp_path / "grown.faiss")
    np.testing.assert_array_equal(
        again.search(queries, 10)[1], grown.search(queries, 10)[1]
    )


def test_an_index_that_outgrows_its_kind_becomes_another(vectors, queries):
    whole = parts(vectors, 900)
    index = VectorIndex.build(Vectors(whole.parts[:1]), SETTINGS["hnsw"])
    assert index.report.choice.kind == "flat"
    grown = index.extended(whole, SETTINGS["hnsw"])
    assert grown.report.choice.kind == "hnsw"
    assert check(vectors, queries, grown.search(queries, 10), 10) >= 0.9


def test_progress_counts_the_vectors(vectors, monkeypatch):
    monkeypatch.setattr("cm3leon.retrieval.vector_index.BLOCK", 600)
    seen = []
    pieces = parts(vectors, 700)
    VectorIndex.build(
        pieces, SETTINGS["flat"], lambda stage, done: seen.append((stage, done))
    )
    assert seen == [("index", n) for n in (600, 700, 1_300, 1_600)]


def test_rows_of_several_arrays_are_those_of_one(vectors, monkeypatch):
    monkeypatch.setattr("cm3leon.retrieval.vector_index.BLOCK", 300)
    pieces = parts(vectors, 0, 700, 701)
    assert len(pieces) == 1_600
    numbers = np.asarray([1_599, 0, 700, 699, 701, 0])
    np.testing.assert_array_equal(pieces.take(numbers), vectors[numbers])
    assert pieces.take(numbers[:0]).shape == (0, 16)
    np.testing.assert_array_equal(np.concatenate(list(pieces.blocks())), vectors)


def test_the_measure_compares_every_vector(vectors, queries):
    answer = exhaustive(parts(vectors, 700), queries, 10)
    assert check(vectors, queries, answer, 10) == 1


def test_up_to_so_many_are_compared_whatever_the_memory():
    assert choose_index(1_000, 16, 0, exact_below=1_000).kind == "flat"
    assert choose_index(1_001, 16, 2**30, exact_below=1_000).kind == "hnsw"


def test_the_best_index_that_fits_is_chosen():
    count, width = 1_000_000, 64
    ranks = []
    for memory in range(450_000_000, 10_000_000, -1_000_000):
        choice = choose_index(count, width, memory)
        assert choice.kind in ("hnsw", "ivfpq")
        if choice.kind == "ivfpq":
            assert width % choice.bytes_per_vector == 0
            assert 39 * choice.lists <= count
            assert count * choice.bytes_per_vector < memory
        ranks.append(width if choice.kind == "hnsw" else choice.bytes_per_vector)
    assert ranks == sorted(ranks, reverse=True)
    assert list(dict.fromkeys(ranks)) == [64, 32, 16, 8, 4, 2]


@pytest.mark.parametrize("width", [1, 15, 24])
def test_every_width_has_an_index(width, clustered):
    vectors = clustered(1_100, width=width)
    needed = 1_100 * (max(1, width // 2) + 8) + 4 * width * 16
    settings = IndexSettings(exact_below=1_000, memory_bytes=needed)
    index = VectorIndex.build(parts(vectors), settings)
    assert index.report.choice.kind == "ivfpq"
    assert check(vectors, vectors[:9], index.search(vectors[:9], 5), 5) > 0


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_index_takes_little_more_than_was_reckoned(built, kind):
    index = built[kind]
    size = faiss.serialize_index(index.index).nbytes
    codebook = 4 * 256 * 16 if kind == "ivfpq" else 0  # the same for any count
    fits = int(1.02 * (size - codebook))
    assert choose_index(1_600, 16, fits, exact_below=1_000) == index.report.choice


def test_a_memory_that_nothing_fits_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"takes \d+ bytes at .* is 9000000; ra") as e:
        choose_index(1_000_000, 64, 9_000_000)
    assert "\n" not in str(e.value)
    least = int(str(e.value).split("takes ")[1].split()[0])
    assert choose_index(1_000_000, 64, least).kind == "ivfpq"
    with pytest.raises(ConfigError):
        choose_index(1_000_000, 64, least - 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exact_below": 999}, "exact_below is 999, below 1000"),
        ({"recall": 0.0}, r"recall is 0.0, outside \(0, 1\]"),
        ({"recall": 1.01}, "recall is 1.01, outside"),
        ({"recall": float("nan")}, "recall is nan, outside"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        IndexSettings(**changes)


def refused(error, message, *args):
    with pytest.raises(error, match=message) as caught:
        VectorIndex.load(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_an_index_file_that_was_cut_is_corrupt(built, vectors, kind, share, tmp_path):
    path = tmp_path / "index.faiss"
    built[kind].save(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    message = f"{path} is no FAISS index; build"
    refused(ShardCorrupt, message, parts(vectors), built[kind].report, path)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_file_of_something_else_is_corrupt(built, vectors, kind, tmp_path):
    path = tmp_path / "index.faiss"
    message = f"{path} is no FAISS index; build"
    refused(ShardCorrupt, message, parts(vectors), built[kind].report, path)
    path.write_bytes(b"a red apple on a white plate" * 99)
    refused(ShardCorrupt, message, parts(vectors), built[kind].report, path)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_an_index_of_other_vectors_is_refused(
    built, vectors, clustered, kind, tmp_path
):
    path, report = tmp_path / "index.faiss", built[kind].report
    built[kind].save(path)
    wide = parts(clustered(1_600, width=24))
    refused(DataError, f"{path} has vectors of width 16, the.* 24", wide, report, path)
    few = parts(vectors[:-1])
    refused(DataError, f"{path} has 1600 vectors, the bank 1599", few, report, path)
    (other,) = set(APPROXIMATE) - {kind}
    whole, other = parts(vectors), IndexReport(choice=built[other].report.choice)
    refused(DataError, f"{path} holds no {other.choice.kind} ind", whole, other, path)
    refused(DataError, "the manifest names no index file", whole, report, None)
