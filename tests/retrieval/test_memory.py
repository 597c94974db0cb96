import pickle
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from cm3leon.errors import ConfigError, DataError, RequestError, ShardCorrupt
from cm3leon.retrieval.manifest import (
    LOCK,
    MANIFEST,
    BankConfig,
    next_number,
    read_manifest,
)
from cm3leon.retrieval.memory import (
    BankDocument,
    BankWriter,
    MemoryBank,
    merge,
    problems,
    remove,
)
from cm3leon.retrieval.vector_index import IndexSettings

GRAPH = IndexSettings(exact_below=1_000)
LISTS = IndexSettings(exact_below=1_000, memory_bytes=100_000)

WORKER = """
import pickle, sys
from pathlib import Path
from cm3leon.retrieval.memory import BankWriter

folder, config, documents, vectors = pickle.loads(Path(sys.argv[1]).read_bytes())
writer = BankWriter(folder, config)
for start in range(0, len(documents), 8):
    writer.add(documents[start : start + 8], vectors[start : start + 8])
writer.finish(part=(0, 2))
"""


class Killed(BaseException):
    """No code of ours catches it."""


@pytest.fixture(scope="module")
def documents(captioned):
    return captioned(30)


@pytest.fixture(scope="module")
def vectors(clustered):
    return clustered(30)


@pytest.fixture(scope="module")
def queries(clustered):
    return clustered(9, seed=1)


@pytest.fixture(scope="module")
def straight(build, config, documents, vectors, tmp_path_factory):
    """A bank of thirty documents in four shards; to be read only."""
    folder = tmp_path_factory.mktemp("straight") / "bank"
    return build(folder, config, documents, vectors)


@pytest.fixture(scope="module")
def large(build, config, captioned, clustered, tmp_path_factory):
    """A bank of 1100 documents in two shards, with a graph; to be read only."""
    folder = tmp_path_factory.mktemp("large") / "bank"
    return build(folder, config, captioned(1_100), clustered(1_100), GRAPH, step=600)


@pytest.fixture
def copy(straight, tmp_path):
    return Path(shutil.copytree(straight, tmp_path / "bank"))


@pytest.fixture
def large_copy(large, tmp_path):
    return Path(shutil.copytree(large, tmp_path / "bank"))


@pytest.fixture
def kill(monkeypatch):
    """A function that kills an action at its n-th change of the disk, if it has one.

    A file whose renaming is where it is killed is left half written.
    """

    def kill(action, step):
        left = iter(range(step))

        def deadly(change, *, cut=False):
            def changed(path, *args, **kwargs):
                if next(left, None) is None:
                    if cut and path.stat().st_nlink == 1:  # not through a link
                        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                    raise Killed
                return change(path, *args, **kwargs)

            return changed

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", deadly(Path.replace, cut=True))
            patch.setattr(Path, "unlink", deadly(Path.unlink))
            patch.setattr("os.fsync", deadly(lambda _: None))
            try:
                action()
            except Killed:
                return True
        return False

    return kill


def content(folder):
    """Documents and vectors, in order, of a bank that is whole."""
    assert list(problems(folder)) == []
    bank = MemoryBank.open(folder)
    return list(bank), bank.vectors(range(len(bank)))


def same(folder, other, queries):
    """Do two banks hold the same and answer the same?"""
    (documents, vectors), (others, their_vectors) = content(folder), content(other)
    assert documents == others
    np.testing.assert_array_equal(vectors, their_vectors)
    answers = [MemoryBank.open(path).search(queries, 12) for path in (folder, other)]
    for one, two in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, two)
    return True


def only_what_is_named(folder):
    """Is nothing left in the folder that no manifest names?"""
    named = {file.name for file in read_manifest(folder).files}
    return {path.name for path in folder.iterdir()} - {LOCK} == named | {MANIFEST}


def refused(error, message, function, *args, **kwargs):
    with pytest.raises(error, match=message) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_documents_and_vectors_come_back_as_written(straight, documents, vectors):
    bank = MemoryBank.open(straight)
    assert len(bank) == 30
    assert list(bank) == documents
    assert bank[29] == documents[29]
    np.testing.assert_array_equal(bank.vectors([29, 0, 8, 0]), vectors[[29, 0, 8, 0]])
    with pytest.raises(IndexError):
        bank[30]
    assert only_what_is_named(straight)


def test_a_document_before_a_prompt_is_its_text_and_its_codes(documents):
    document = documents[3].document()
    assert document.text == documents[3].text
    assert [image.codes for image in document.images] == [documents[3].codes]


def test_search_finds_what_comparing_all_finds(straight, vectors, queries):
    relevances, numbers = MemoryBank.open(straight).search(queries, 30)
    products = queries @ vectors.T
    np.testing.assert_allclose(
        relevances, -np.sort(-products, axis=1), rtol=0, atol=1e-5
    )
    found = np.take_along_axis(products, numbers, axis=1)
    np.testing.assert_allclose(relevances, found, rtol=0, atol=1e-5)


def test_sources_licences_and_authors_are_counted(straight, documents):
    bank = MemoryBank.open(straight)
    assert bank.tally("source") == {"core": 15, "mono": 15}
    assert bank.tally("licence") == {"CC BY 4.0": 30}
    assert bank.tally("author") == Counter(one.author for one in documents)


def test_a_picture_is_there_once(straight, config, documents, vectors, queries, copy):
    writer = BankWriter(copy, config)
    assert writer.add(documents, vectors) == 0
    assert writer.add([], vectors[:0]) == 0
    assert writer.finish() == read_manifest(straight) == read_manifest(copy)
    twice = [documents[2], replace(documents[2], text="another"), documents[3]]
    other = BankWriter(copy.with_name("other"), config)
    assert other.add(twice, vectors[2:5]) == 2
    assert other.add(twice[::-1], vectors[2:5]) == 0
    other.finish()
    held, held_vectors = content(copy.with_name("other"))
    assert held == [documents[2], documents[3]]
    np.testing.assert_array_equal(held_vectors, vectors[[2, 4]])


def test_documents_come_later_too(copy, build, config, captioned, clustered, queries):
    every, vectors = captioned(50), clustered(50)
    vectors[:30] = MemoryBank.open(copy).vectors(range(30))
    writer = BankWriter(copy, config)
    assert writer.add(every[20:], vectors[20:]) == 20
    refused(DataError, r"bank was not finished \(50 documents", MemoryBank.open, copy)
    writer.finish()
    once = build(copy.with_name("once"), config, every, vectors)
    assert same(copy, once, queries)
    assert only_what_is_named(copy)


@pytest.mark.parametrize("settings", [GRAPH, LISTS])
def test_an_index_grows_with_its_bank(
    settings, build, config, captioned, clustered, tmp_path
):
    documents, vectors = captioned(1_200), clustered(1_200)
    folder = tmp_path / "bank"
    build(folder, config, documents[:1_050], vectors[:1_050], settings, step=500)
    (first,) = folder.glob("index-*")
    writer = BankWriter(folder, config)
    writer.add(documents[1_050:], vectors[1_050:])
    report = writer.finish().index
    assert report.choice.kind == ("hnsw" if settings == GRAPH else "ivfpq")
    assert report.recall_at_10 >= settings.recall
    assert [path.name for path in folder.glob("index-*")] == ["index-00001.faiss"]
    assert not first.exists()
    assert content(folder)[0] == documents
    relevances, numbers = MemoryBank.open(folder).search(vectors[1_050:], 1)
    assert np.mean(relevances[:, 0] > 1 - 2e-3) > 0.99
    assert np.mean(numbers[:, 0] >= 1_050) > 0.9


def test_a_bank_that_outgrows_a_flat_index_gets_another(
    build, config, captioned, clustered, tmp_path
):
    documents, vectors = captioned(1_001), clustered(1_001)
    folder = tmp_path / "b"
    build(folder, config, documents[:1_000], vectors[:1_000], GRAPH, step=500)
    assert read_manifest(folder).index_file is None
    writer = BankWriter(folder, config)
    writer.add(documents[1_000:], vectors[1_000:])
    assert writer.finish().index.choice.kind == "hnsw"
    gone = remove(folder, [documents[5].key])
    assert (gone.index.choice.kind, gone.index_file) == ("flat", None)
    assert only_what_is_named(folder)


def test_other_settings_build_another_index(large_copy, config):
    assert read_manifest(large_copy).index.choice.kind == "hnsw"
    exact = IndexSettings()
    made = BankWriter(large_copy, config, exact).finish()
    assert made == read_manifest(large_copy)
    assert (made.settings, made.index.choice.kind) == (exact, "flat")
    assert BankWriter(large_copy, config).finish() == made
    assert only_what_is_named(large_copy)


def test_an_index_that_does_not_fit_can_be_built_again_with_more_memory(
    build, config, captioned, clustered, tmp_path
):
    folder, documents, vectors = tmp_path / "b", captioned(1_001), clustered(1_001)
    tiny = replace(GRAPH, memory_bytes=5_000)
    with pytest.raises(ConfigError, match="memory_bytes is 5000; raise it"):
        build(folder, config, documents, vectors, tiny, step=1_001)
    BankWriter(folder, config, GRAPH).finish()
    assert content(folder)[0] == documents


# Killed writers


def test_a_build_killed_anywhere_and_run_again_is_one_run_straight(
    kill, build, config, documents, vectors, straight, queries, tmp_path
):
    for step in count():
        folder = tmp_path / str(step)
        killed = kill(lambda at=folder: build(at, config, documents, vectors), step)
        if killed and (folder / MANIFEST).exists():
            whole = {file.name for file in read_manifest(folder).files}
            assert whole <= {path.name for path in folder.iterdir()}
        build(folder, config, documents, vectors)
        assert read_manifest(folder) == read_manifest(straight)
        assert same(folder, straight, queries)
        assert only_what_is_named(folder)
        if not killed:
            break
    assert step > 20


def test_a_bank_that_grows_and_is_killed_anywhere_is_finished_by_the_same_call(
    kill, config, captioned, clustered, large, tmp_path
):
    documents, vectors = captioned(1_103), clustered(1_103)
    vectors[:1_100] = content(large)[1]

    def grow(folder):
        writer = BankWriter(folder, config)
        writer.add(documents, vectors)
        writer.finish()

    for step in count():
        folder = Path(shutil.copytree(large, tmp_path / str(step)))
        killed = kill(lambda at=folder: grow(at), step)
        grow(folder)
        assert only_what_is_named(folder)
        held, held_vectors = content(folder)
        assert held == documents
        np.testing.assert_array_equal(held_vectors, vectors)
        if not killed:
            break
    assert step > 8


@pytest.mark.parametrize("keys", [range(3, 20), [5], range(8)])
def test_a_removal_killed_anywhere_leaves_the_old_bank_or_the_new_one(
    kill, documents, vectors, straight, queries, tmp_path, keys
):
    gone = [documents[number].key for number in keys]
    after = Path(shutil.copytree(straight, tmp_path / "after"))
    remove(after, gone)
    for step in count():
        folder = Path(shutil.copytree(straight, tmp_path / str(step)))
        killed = kill(lambda at=folder: remove(at, gone), step)
        assert len(content(folder)[0]) in (30, 30 - len(gone))
        if len(content(folder)[0]) == 30:
            assert same(folder, straight, queries)
            remove(folder, gone)
            assert only_what_is_named(folder)
        assert same(folder, after, queries)
        if not killed:
            break
    assert step > 3


def test_a_merge_killed_anywhere_and_run_again_is_one_run_straight(
    kill, build, config, documents, vectors, straight, queries, tmp_path
):
    parts = [tmp_path / "one", tmp_path / "two"]
    build(parts[0], config, documents[:16], vectors[:16], part=(0, 2))
    build(parts[1], config, documents[16:], vectors[16:])
    for step in count():
        folder = tmp_path / str(step)
        killed = kill(lambda at=folder: merge(parts, at), step)
        if not (folder / MANIFEST).exists() or not read_manifest(folder).complete:
            merge(parts, folder)
            assert only_what_is_named(folder)
        assert same(folder, straight, queries)
        if not killed:
            break
    assert step > 8
    assert [len(content(part)[0]) for part in parts[1:]] == [14]


def test_a_build_without_its_index_is_finished_by_the_next(
    monkeypatch, build, config, captioned, clustered, large, tmp_path
):
    folder, documents, vectors = tmp_path / "bank", captioned(1_100), clustered(1_100)

    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("cm3leon.retrieval.memory.VectorIndex.build", fail)
        with pytest.raises(MemoryError):
            build(folder, config, documents, vectors, GRAPH, step=600)
    refused(DataError, "bank was not finished .1100 documents", MemoryBank.open, folder)
    assert [text for text in problems(folder) if "was not finished" in text]
    build(folder, config, documents, vectors, step=600)
    assert same(folder, large, vectors[:50])


def test_what_a_full_disk_refused_can_be_added_by_the_same_writer(
    monkeypatch, config, documents, vectors, straight, queries, tmp_path
):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    writer = BankWriter(tmp_path / "bank", config)
    for start in range(0, 30, 8):
        part = slice(start, start + 8)
        for name in ("write_file", "write_manifest"):
            with monkeypatch.context() as patch:
                patch.setattr(f"cm3leon.retrieval.memory.{name}", fail)
                with pytest.raises(OSError, match="No space left"):
                    writer.add(documents[part], vectors[part])
        assert writer.add(documents[part], vectors[part]) == len(documents[part])
    for part in ((0, 2), None):
        with monkeypatch.context() as patch:
            patch.setattr("cm3leon.retrieval.memory.write_manifest", fail)
            with pytest.raises(OSError, match="No space left"):
                writer.finish(part=part)
    writer.finish()
    assert same(tmp_path / "bank", straight, queries)


def test_a_writer_sweeps_what_a_killed_one_left_and_nothing_else(copy, config):
    left = [
        "documents-00004.arrow",
        "documents-00005.arrow.part",
        "vectors-00004.npy.part",
        "index-00000.faiss",
    ]
    for name in [*left, "README.md", "my-vectors-00004.npy"]:
        (copy / name).write_bytes(b"half")
    before = read_manifest(copy)
    BankWriter(copy, config)
    names = {path.name for path in copy.iterdir()}
    assert names.isdisjoint(left)
    assert {"README.md", "my-vectors-00004.npy"} < names
    assert read_manifest(copy) == before


# Two writers, and lost manifests


def test_a_second_writer_is_refused_at_once_until_the_first_has_finished(
    copy, config, captioned, clustered
):
    message = f"{copy} is being written by somebody else; wait"
    writer = BankWriter(copy, config)
    refused(DataError, message, BankWriter, copy, config)
    refused(DataError, message, remove, copy, ["picture 3"])
    refused(DataError, message, merge, [copy], copy)
    writer.add(captioned(5, start=90), clustered(5))
    refused(DataError, message, BankWriter, copy, config)
    assert writer.finish().count == 35
    assert remove(copy, ["picture 3"]).count == 34
    second = BankWriter(copy, config)
    assert second.add(captioned(9, start=90), clustered(9)) == 4
    del second  # as good as finished
    assert BankWriter(copy, config).finish().count == 38


def test_a_writer_that_could_not_begin_is_in_nobodys_way(copy, config):
    with pytest.raises(DataError, match="another bi-encoder") as caught:
        BankWriter(copy, replace(config, encoder="f" * 64))
    assert BankWriter(copy, config).finish() == read_manifest(copy)
    assert caught.tb is not None  # it still holds the writer that failed


def test_the_lock_of_a_killed_process_holds_nobody_up(copy, config):
    code = """
import sys, time
from pathlib import Path
from cm3leon.retrieval.manifest import lock

held = lock(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(600)
"""
    command = [sys.executable, "-c", code, str(copy)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        refused(DataError, "is being written", BankWriter, copy, config)
        other.kill()
    assert BankWriter(copy, config).finish() == read_manifest(copy)


def test_files_that_lost_their_manifest_are_left_alone(
    copy, straight, config, documents
):
    (copy / MANIFEST).unlink()
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    message = f"{copy} holds documents-00000.arrow .* {MANIFEST} is gone; put that back"
    refused(ShardCorrupt, message, MemoryBank.open, copy)
    refused(ShardCorrupt, message, list, problems(copy))
    refused(ShardCorrupt, message, remove, copy, ["picture 3"])
    refused(ShardCorrupt, message, BankWriter, copy, config)
    refused(ShardCorrupt, message, merge, [straight], copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    shutil.copy(straight / MANIFEST, copy)
    assert content(copy)[0] == documents


# Removal


@pytest.mark.parametrize("settings", [None, GRAPH, LISTS])
def test_what_was_removed_is_never_found(
    settings, build, config, captioned, clustered, tmp_path
):
    size = 60 if settings is None else 1_200
    documents, vectors = captioned(size), clustered(size)
    folder = build(tmp_path / "b", config, documents, vectors, settings, step=500)
    gone = {one.key for one in documents[5:35]}
    manifest = remove(folder, gone)
    assert manifest == read_manifest(folder)
    left, left_vectors = content(folder)
    kept = [number for number, one in enumerate(documents) if one.key not in gone]
    assert left == [documents[number] for number in kept]
    np.testing.assert_array_equal(left_vectors, vectors[kept])
    bank = MemoryBank.open(folder)
    _, numbers = bank.search(vectors[5:35], len(bank))
    assert {bank[number].key for number in set(numbers.ravel().tolist())}.isdisjoint(
        gone
    )
    assert sorted(numbers[0].tolist()) == list(range(len(left)))
    writer = BankWriter(folder, config)
    assert writer.add(documents, vectors) == 30  # it may come back
    writer.finish()
    assert {one.key for one in content(folder)[0]} == {one.key for one in documents}


def test_a_shard_that_loses_all_its_documents_is_gone(copy, documents):
    remove(copy, [one.key for one in documents[8:16]])
    assert [shard.count for shard in read_manifest(copy).shards] == [8, 8, 6]
    assert only_what_is_named(copy)


def test_removal_of_what_is_not_there_or_of_all_is_refused(copy, documents):
    before = read_manifest(copy)
    keys = [one.key for one in documents]
    refused(RequestError, "has no document 'an apple'", remove, copy, ["an apple"])
    refused(RequestError, "would be empty; delete the folder", remove, copy, keys)
    assert read_manifest(copy) == before
    assert len(content(copy)[0]) == 30


# Parts


def test_parts_of_two_processes_are_one_bank_built_at_once(
    config, documents, vectors, straight, queries, tmp_path
):
    workers, parts = [], [tmp_path / "one", tmp_path / "two"]
    for folder, rows in zip(parts, (slice(16), slice(16, 30)), strict=True):
        work = folder.with_suffix(".pickle")
        work.write_bytes(pickle.dumps((folder, config, documents[rows], vectors[rows])))
        command = [sys.executable, "-c", WORKER, str(work)]
        workers.append(subprocess.Popen(command))
    assert [worker.wait() for worker in workers] == [0, 0]
    message = r"one is part 0 of 2 \(from 0\), which is not searched .* memory merge"
    refused(DataError, message, MemoryBank.open, parts[0])
    assert list(problems(parts[0])) == []
    merged = merge(parts, tmp_path / "bank")
    assert merged == read_manifest(tmp_path / "bank")
    assert same(tmp_path / "bank", straight, queries)
    assert only_what_is_named(tmp_path / "bank")


def test_a_merged_bank_lives_without_its_parts(
    build, config, captioned, clustered, tmp_path
):
    documents, vectors = captioned(1_010), clustered(1_010)
    parts = [tmp_path / "one", tmp_path / "two"]
    build(parts[0], config, documents[:9], vectors[:9], GRAPH)
    build(parts[1], config, documents[9:], vectors[9:], GRAPH, step=600)
    folder = tmp_path / "bank"
    assert merge(parts, folder, settings=LISTS).index.choice.kind == "ivfpq"
    remove(parts[0], [documents[0].key])
    shutil.rmtree(parts[1])
    held, held_vectors = content(folder)
    assert held == documents
    np.testing.assert_array_equal(held_vectors, vectors)


def test_files_are_copied_where_they_cannot_be_linked(
    monkeypatch, copy, straight, queries
):
    def fail(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", fail)
    merge([copy], copy.with_name("merged"))
    assert same(copy.with_name("merged"), straight, queries)
    file = read_manifest(copy).files[0].name
    assert (copy.with_name("merged") / file).stat().st_nlink == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "f" * 64}, "another bi-encoder"),
        ({"image_tokenizer": "u" * 64}, "another image tokenizer"),
        ({"codebook_size": 65}, r"another codebook_size \(64, not 65\)"),
    ],
)
def test_parts_of_other_encoders_are_refused(
    copy, build, config, captioned, clustered, changes, message
):
    other = replace(config, **changes)
    part = copy.with_name("part")
    build(part, other, captioned(5, start=90), clustered(5))
    folder = copy.with_name("merged")
    refused(DataError, f"built with {message}", merge, [copy, part], folder)
    refused(DataError, f"{copy} was built with {message}", BankWriter, copy, other)
    assert not (folder / MANIFEST).exists()
    assert len(content(copy)[0]) == 30


def test_parts_that_share_a_document_are_refused(
    copy, build, config, documents, vectors
):
    part, folder = copy.with_name("part"), copy.with_name("merged")
    build(part, config, documents[29:], vectors[29:])
    message = f"{part} and {copy} both hold document 'picture 29'"
    refused(DataError, message, merge, [copy, part], folder)
    refused(DataError, "both hold document 'picture 0'", merge, [copy, copy], folder)


def test_parts_that_are_not_finished_or_not_there_are_refused(
    copy, config, documents, vectors, tmp_path
):
    part, folder = tmp_path / "part", tmp_path / "merged"
    refused(DataError, "part holds no memory bank", merge, [copy, part], folder)
    BankWriter(part, config).add(documents, vectors)
    refused(DataError, "part was not finished", merge, [copy, part], folder)
    refused(DataError, "no parts to merge", merge, [], folder)


def test_a_merge_leaves_every_bank_that_is_there(
    copy, straight, config, captioned, clustered, queries, tmp_path
):
    refused(DataError, "bank holds a", merge, [straight], copy)
    part = tmp_path / "part"
    writer = BankWriter(part, config)
    writer.add(captioned(20, start=90), clustered(20))
    refused(DataError, "part is being written", merge, [copy, part], part)
    writer.finish()
    refused(DataError, "part holds a", merge, [copy, part], part)
    assert content(part)[0] == captioned(20, start=90)
    assert same(copy, straight, queries)


# Damage

FILES = [
    "documents-00000.arrow",
    "documents-00001.arrow",
    "vectors-00000.npy",
    "vectors-00001.npy",
    "index-00000.faiss",
]


def spoil(path, how):
    content = bytearray(path.read_bytes())
    match how:
        case "missing":
            path.unlink()
            return
        case "empty":
            content = b""
        case "cut":
            content = content[:-1]
        case "longer":
            content += b"\0"
        case "first byte":
            content[0] ^= 1
        case "middle byte":
            content[len(content) // 2] ^= 0x80
        case "last byte":
            content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("empty", r"has 0 bytes, the manifest says \d+"),
        ("cut", r"has \d+ bytes, the manifest says \d+"),
        ("longer", r"has \d+ bytes, the manifest says \d+"),
        ("first byte", "differs from its checksum"),
        ("middle byte", "differs from its checksum"),
        ("last byte", "differs from its checksum"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(large_copy, config, file, how, message):
    spoil(large_copy / file, how)
    message = f"{large_copy / file} {message}.*; build"
    refused(ShardCorrupt, message, MemoryBank.open, large_copy)
    refused(ShardCorrupt, message, remove, large_copy, ["picture 3"])
    (found,) = problems(large_copy)
    with pytest.raises(ShardCorrupt, match=message):
        raise ShardCorrupt(found)
    merged = large_copy.with_name("merged")
    refused(ShardCorrupt, message, merge, [large_copy], merged)
    if "checksum" not in message:
        refused(ShardCorrupt, message, BankWriter, large_copy, config)


@pytest.mark.parametrize(
    ("file", "how"),
    [("documents-00001.arrow", "last byte"), ("vectors-00001.npy", "first byte")],
)
def test_a_file_that_cannot_be_read_is_named_without_its_checksum(
    large_copy, file, how
):
    spoil(large_copy / file, how)
    message = f"{large_copy / file} is damaged; build"
    refused(ShardCorrupt, message, MemoryBank.open, large_copy, verify=False)


def test_a_damaged_index_does_not_grow(large_copy, config, captioned, clustered):
    path = large_copy / FILES[-1]
    spoil(path, "last byte")
    writer = BankWriter(large_copy, config)
    writer.add(captioned(3, start=5_000), clustered(3))
    refused(ShardCorrupt, f"{path} differs from its checksum", writer.finish)


def test_an_index_of_another_bank_is_refused(
    large_copy, build, config, captioned, clustered, tmp_path
):
    other = tmp_path / "other"
    build(other, config, captioned(1_100), clustered(1_100, seed=9), GRAPH, step=600)
    name = FILES[-1]
    (large_copy / name).write_bytes((other / name).read_bytes())
    message = f"{large_copy / name} (differs|has)"
    refused(ShardCorrupt, message, MemoryBank.open, large_copy)
    assert [text for text in problems(large_copy) if name in text]


@pytest.mark.parametrize("kind", ["documents-{}.arrow", "vectors-{}.npy"])
def test_shards_that_changed_places_are_refused(copy, kind):
    one, two = (copy / kind.format(number) for number in ("00000", "00001"))
    other = two.read_bytes()
    two.write_bytes(one.read_bytes())
    one.write_bytes(other)
    refused(ShardCorrupt, f"{one} (has|differs)", MemoryBank.open, copy)
    assert len(list(problems(copy))) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"count": 8', '"count": 7', r"\[8, 16\], the manifest says \[7, 16\]"),
        ('"width": 16', '"width": 8', r"\[8, 16\], the manifest says \[8, 8\]"),
    ],
)
def test_files_of_another_size_than_the_manifest_says_are_refused(
    copy, old, new, message
):
    path = copy / MANIFEST
    path.write_text(path.read_text().replace(old, new, 1))
    message = f"documents-00000.arrow has 8 documents and vectors of shape {message}"
    refused(DataError, message, MemoryBank.open, copy)
    refused(DataError, message, list, problems(copy))


def damaged(how, text):
    match how:
        case "cut":
            return text[: len(text) // 2]
        case "empty":
            return ""
        case "no object":
            return "[]"
        case "no JSON":
            return "\0" + text[1:]
        case "no UTF-8":
            return text.replace("eeee", "e\udcffee", 1)
        case "no config":
            return text.replace('"config"', '"konfig"')
        case "words for a number":
            return text.replace('"count": 8', '"count": "8"')
        case "another kind":
            return text.replace('"flat"', '"flot"')
        case "settings out of range":
            return text.replace('"recall": 0.95', '"recall": 9.95')
        case _:
            raise AssertionError(how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "EOF"),
        ("empty", "EOF"),
        ("no object", ""),
        ("no JSON", "expected value"),
        ("no UTF-8", ""),
        ("no config", "config: Field required"),
        ("words for a number", r"shards.0.count: Input should be a valid integer"),
        ("another kind", r"index.choice.kind: Input should be 'flat', 'hnsw' or"),
        ("settings out of range", "recall is 9.95"),
    ],
)
def test_a_damaged_manifest_is_named_in_one_line(copy, config, how, message):
    path = copy / MANIFEST
    text = damaged(how, path.read_text())
    path.write_bytes(text.encode(errors="surrogateescape"))
    message = rf"{path} is damaged \(.*{message}"
    refused(ShardCorrupt, message, MemoryBank.open, copy)
    refused(ShardCorrupt, message, BankWriter, copy, config)
    refused(ShardCorrupt, message, remove, copy, ["picture 3"])
    refused(ShardCorrupt, message, list, problems(copy))


def test_another_format_is_named(copy):
    path = copy / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    message = f"{path} has bank format 2, this version reads 1"
    refused(DataError, message, MemoryBank.open, copy)
    path.write_text('{"format": 7}')
    refused(DataError, "has bank format 7", MemoryBank.open, copy)


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_without_a_bank_says_so(tmp_path, made):
    folder = tmp_path if made else tmp_path / "nowhere"
    message = f"{folder} holds no memory bank .*build one"
    refused(DataError, message, MemoryBank.open, folder)
    refused(DataError, message, remove, folder, ["picture 3"])
    refused(DataError, message, list, problems(folder))


# What may not come in


def test_an_empty_bank_is_refused(config, tmp_path):
    writer = BankWriter(tmp_path / "bank", config)
    refused(DataError, "bank would be empty; no document", writer.finish)
    message = r"bank was not finished \(0 documents"
    refused(DataError, message, MemoryBank.open, tmp_path / "bank")
    assert [text for text in problems(tmp_path / "bank") if "not finished" in text]


def test_a_bank_to_be_finished_is_not_opened(config, documents, vectors, tmp_path):
    BankWriter(tmp_path / "bank", config).add(documents, vectors)
    message = r"bank was not finished \(30 documents are in it\); run"
    refused(DataError, message, MemoryBank.open, tmp_path / "bank")
    assert [text for text in problems(tmp_path / "bank") if "not finished" in text]


def test_a_part_may_become_a_bank_of_its_own(
    build, config, documents, vectors, straight, queries, tmp_path
):
    folder = build(tmp_path / "b", config, documents, vectors, part=(0, 2))
    assert read_manifest(folder).complete
    BankWriter(folder, config).finish()
    assert same(folder, straight, queries)


def wrong_vectors(how, vectors):
    vectors = vectors[:4].copy()
    match how:
        case "wide":
            return np.pad(vectors, ((0, 0), (0, 1)))
        case "few":
            return vectors[:3]
        case "NaN":
            vectors[2, 3] = np.nan
        case "infinite":
            vectors[2, 3] = -np.inf
        case "zero":
            vectors[2] = 0
        case "long":
            vectors[2] *= 1.02
    return vectors


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("wide", r"4 documents with vectors of shape \[4, 17\]; .* are 16 wide"),
        ("few", r"4 documents with vectors of shape \[3, 16\]"),
        ("NaN", "the vector of 'picture 2' has length nan, not 1"),
        ("infinite", "the vector of 'picture 2' has length inf, not 1"),
        ("zero", "the vector of 'picture 2' has length 0.000, not 1"),
        ("long", "the vector of 'picture 2' has length 1.020, not 1"),
    ],
)
def test_vectors_that_are_none_are_refused(
    config, documents, vectors, how, message, tmp_path
):
    writer = BankWriter(tmp_path, config)
    refused(DataError, message, writer.add, documents[:4], wrong_vectors(how, vectors))
    assert read_manifest(tmp_path).count == 0
    assert writer.add(documents[:4], vectors[:4]) == 4


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ((1, 2, 3), "'picture 2' has 3 codes of 4$"),
        ((1, 2, 3, 4, 5), "'picture 2' has 5 codes of 4$"),
        ((), "'picture 2' has 0 codes of 4$"),
        ((1, 64, 3, 4), "'picture 2' has 4 codes of 4, among them 64$"),
        ((1, 2, 3, -1), "'picture 2' has 4 codes of 4, among them -1$"),
    ],
)
def test_codes_of_another_image_tokenizer_are_refused(
    config, captioned, vectors, codes, message, tmp_path
):
    documents = captioned(4)
    documents[2] = replace(documents[2], codes=codes)
    writer = BankWriter(tmp_path, config)
    refused(DataError, message, writer.add, documents, vectors[:4])
    assert read_manifest(tmp_path).count == 0


def test_every_wrong_record_is_listed(
    monkeypatch, config, captioned, clustered, tmp_path
):
    monkeypatch.setattr("cm3leon.retrieval.memory._check", lambda *_: None)
    documents, vectors = captioned(6), clustered(6)
    vectors[1] *= 0.5
    vectors[2, 0] = np.nan
    documents[3] = replace(documents[3], codes=(1, 2, 64, 3))
    documents[4] = replace(documents[4], codes=())
    BankWriter(tmp_path, config).add(documents[:3], vectors[:3])
    writer = BankWriter(tmp_path, config)
    writer.keys.clear()
    writer.add([*documents[3:], documents[0]], vectors[[3, 4, 5, 0]])
    writer.finish()
    assert list(problems(tmp_path)) == [
        "document 'picture 0' is there 2 times",
        "the vector of 'picture 1' has length 0.500, not 1",
        "the vector of 'picture 2' has length nan, not 1",
        "'picture 3' has codes of another image tokenizer",
        "'picture 4' has codes of another image tokenizer",
    ]


def test_the_largest_code_and_the_plainest_document_come_back(tmp_path, build):
    config = BankConfig(
        width=1,
        encoder="e",
        image_tokenizer="t",
        codes_per_image=1,
        codebook_size=65_536,
    )
    document = BankDocument(key="", text="", codes=(65_535,))
    folder = build(tmp_path / "b", config, [document], np.ones((1, 1)))
    assert content(folder)[0] == [document]


def test_numbers_of_files_count_on():
    assert next_number([]) == 0
    assert next_number(["index-00009.faiss", "vectors-00010.npy"]) == 11
    assert next_number(["vectors-100000.npy"]) == 100_001


def test_a_part_to_be_merged_gives_nothing_away(
    build, config, documents, vectors, tmp_path
):
    folder = build(tmp_path / "part", config, documents, vectors, part=(0, 2))
    with pytest.raises(DataError, match="has no index yet; finish or merge it first"):
        remove(folder, [documents[0].key])


def test_a_manifest_cannot_name_a_file_outside_its_folder(
    build, config, documents, vectors, tmp_path
):
    folder = build(tmp_path / "bank", config, documents, vectors)
    path = folder / MANIFEST
    path.write_text(path.read_text().replace("documents-0", "../documents-0"))
    with pytest.raises(ShardCorrupt, match="is no name of a bank's file"):
        MemoryBank.open(folder)
