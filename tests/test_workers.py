"""Ray's workers and this process give the same, byte for byte."""

import logging

import numpy as np
import pytest

from cm3leon.cli import main as cli
from cm3leon.errors import DataError
from cm3leon.workers import here, open_workers

pytestmark = [
    pytest.mark.slow,
    # Ray's own: settings it has replaced, and files it leaves to the collector
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two workers, started once."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.fixture
def one_thread():
    """As Ray's workers have it: products add up in the same order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pictures(tmp_path, noise_pictures):
    """Eleven pictures, one of them cut short."""
    rows = [{"text": f"square {number}"} for number in range(11)]
    return noise_pictures(tmp_path / "pictures", rows, cut=5)


def equal(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_shards_banks_and_indices_are_those_of_one_process(
    cluster, one_thread, pictures, tokenizers, tmp_path, text_tokenizer
):
    import torch

    from cm3leon.data.bank import bank_config, fill
    from cm3leon.data.build import NeighbourSearch, build_shards
    from cm3leon.data.pictures import Pictures
    from cm3leon.images.tokenizer import ImageTokenizer
    from cm3leon.retrieval.memory import BankWriter, MemoryBank
    from cm3leon.retrieval.retriever import Retriever
    from cm3leon.training.bi_encoder import PRESETS, untrained

    torch.manual_seed(3)
    encoder = untrained(PRESETS["tiny"], tokenizers / "text_tokenizer.json")
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    collection = Pictures.open(pictures, cache=tmp_path / "cache")
    reports = {}
    with open_workers("local") as ray:
        for name, workers in {"here": here, "ray": ray}.items():
            folder = tmp_path / name
            config = bank_config(encoder, image_tokenizer)
            writer = BankWriter(folder / "bank", config)
            parts = (writer, collection, encoder, image_tokenizer)
            banked = fill(*parts, size=3, workers=workers)
            writer.finish(workers=workers)
            bank = MemoryBank.open(folder / "bank")
            near = build_shards(
                collection,
                folder / "shards",
                tokenizers,
                search=NeighbourSearch(Retriever(bank, encoder)),
                size=4,
                versions=1,
                workers=workers,
            )
            reports[name] = (banked, near)
    assert reports["here"] == reports["ray"]
    banked, near = reports["ray"]
    assert (banked.added, near.good) == (10, 10)
    for kind in ("bank", "shards"):
        equal(tmp_path / "here" / kind, tmp_path / "ray" / kind)


def test_an_index_of_vectors_on_disk_and_off_it(cluster, tmp_path):
    from cm3leon.retrieval.vector_index import IndexSettings, VectorIndex, Vectors

    vectors = np.random.default_rng(0).standard_normal((2_000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float16)
    np.save(tmp_path / "first.npy", vectors[:800])
    mapped = np.load(tmp_path / "first.npy", mmap_mode="r")
    parts = Vectors([mapped, vectors[800:]])
    settings = IndexSettings(exact_below=1_000, memory_bytes=2**17)
    with open_workers("local") as ray:
        for name, workers in {"here": here, "ray": ray}.items():
            index = VectorIndex.build(parts, settings, workers=workers)
            assert index.report.choice.kind == "ivfpq"
            index.save(tmp_path / name)
    assert (tmp_path / "here").read_bytes() == (tmp_path / "ray").read_bytes()


def refuse(task):
    raise DataError(f"task {task} is no good")


def test_what_a_worker_says_is_the_error_here(cluster):
    with open_workers("local") as ray, pytest.raises(DataError, match="task 7 is no"):
        list(ray(refuse, [7]))


def test_the_command_goes_on_with_ray_where_it_was(
    cluster, one_thread, pictures, tokenizers, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = ("data", "shards", pictures, tmp_path / "out", "--tokenizers", tokenizers)
    for more in ((), ("--ray", "local")):
        assert cli.main(list(map(str, (*asked, *more)))) == 0
        assert "10 records" in capsys.readouterr().out
