import numpy as np
import pytest

from cm3leon.data.build import build_shards
from cm3leon.data.pictures import Pictures
from cm3leon.data.shards import Alphabets, Record, Shards, TokenSegment, write_shards
from cm3leon.decoding.folder import located
from cm3leon.errors import ConfigError
from cm3leon.planning.storage import Corpus, index_bytes
from cm3leon.retrieval.manifest import read_manifest
from cm3leon.retrieval.vector_index import IndexSettings, VectorIndex, Vectors


@pytest.mark.parametrize("codes", [64, 1024])
@pytest.mark.parametrize("neighbours", [0, 4])
def test_shards_take_what_they_take(tmp_path, codes, neighbours):
    corpus = Corpus(documents=500, codes=codes, neighbours=neighbours)
    document = (
        TokenSegment("text", (tuple(range(corpus.text_ids)),)),
        TokenSegment("image", (tuple(range(codes)),)),
    )
    records = [
        Record(f"set/picture-{number}.png", "core", document, (document,) * neighbours)
        for number in range(corpus.documents)
    ]
    alphabets = Alphabets(
        text_tokenizer="", text_size=300, codes_per_image=codes, codebook_size=codes
    )
    assert list(write_shards(tmp_path, records, alphabets)) == [corpus.documents]
    size = sum(path.stat().st_size for path in tmp_path.glob("*.arrow"))
    assert corpus.shards == pytest.approx(size, rel=0.1)


def test_shards_with_mirrored_and_moved_versions_take_what_they_take(
    tmp_path, tokenizers, noise_pictures
):
    rows = [{"text": f"square {number}"} for number in range(65)]
    folder = noise_pictures(tmp_path / "pictures", rows, cut=0)
    pictures = Pictures.open(folder, cache=tmp_path / "cache")
    build_shards(pictures, tmp_path / "shards", tokenizers, versions=10)
    shards = Shards(tmp_path / "shards")
    text, image = shards[0].segments
    corpus = Corpus(
        documents=len(shards),
        codes=len(image.alternatives[0]),
        versions=12,
        text_ids=len(text.alternatives[0]),
        neighbours=0,
    )
    size = sum(path.stat().st_size for path in (tmp_path / "shards").glob("*.arrow"))
    assert corpus.shards == pytest.approx(size, rel=0.1)


def test_a_bank_takes_what_the_shipped_one_does():
    manifest = read_manifest(located(None) / "memory")
    config = manifest.config
    corpus = Corpus(
        documents=manifest.count, codes=config.codes_per_image, vector=config.width
    )
    planned, index = corpus.bank()
    assert planned == pytest.approx(sum(file.bytes for file in manifest.files), rel=0.1)
    assert manifest.index is not None
    assert index == manifest.index.choice.factory


@pytest.mark.parametrize(("memory", "kind"), [(2**30, "hnsw"), (150_000, "ivfpq")])
def test_an_index_takes_what_it_takes(tmp_path, memory, kind):
    random = np.random.default_rng(0)
    vectors = Vectors([random.normal(size=(4000, 32)).astype(np.float16)])
    settings = IndexSettings(exact_below=1000, memory_bytes=memory, recall=0.1)
    index = VectorIndex.build(vectors, settings)
    assert index.report.choice.kind == kind
    index.save(tmp_path / "index")
    size = (tmp_path / "index").stat().st_size
    assert index_bytes(index.report.choice, 4000, 32) == pytest.approx(size, rel=0.1)


def test_the_papers_corpus_needs_a_quantised_index_and_terabytes():
    corpus = Corpus()
    assert corpus.bank()[1].startswith("IVF")
    assert 1e12 < corpus.bank()[0] < corpus.shards < 1e13


@pytest.mark.parametrize("name", ["documents", "codes", "versions"])
def test_none_of_what_must_be_there_is_refused(name):
    with pytest.raises(ConfigError, match=f"{name} is 0, below 1"):
        Corpus(**{name: 0})
