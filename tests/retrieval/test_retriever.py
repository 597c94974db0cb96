from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cm3leon.decoding.folder import located
from cm3leon.errors import ConfigError
from cm3leon.retrieval.encoder import BiEncoder, document_vectors
from cm3leon.retrieval.memory import BankDocument, MemoryBank, remove
from cm3leon.retrieval.retriever import Retriever, RetrieverConfig, drop_words
from cm3leon.retrieval.vector_index import IndexSettings

ALL = 10_000  # more than any bank here holds
CAPS = [0.5, 0.9, 0.97]
NEAR = 1e-5


@pytest.fixture(scope="module")
def ours(config, encoder):
    """What a bank of the tiny bi-encoder is of."""
    return replace(config, encoder=encoder.fingerprint, width=encoder.width)


@pytest.fixture(scope="module")
def crowd(clustered):
    """Vectors in tight clusters: most all but repeat many others."""

    def crowd(count, seed=0):
        return clustered(count, seed, width=8, centres=6, spread=0.12)

    return crowd


@pytest.fixture(scope="module")
def bank(build, ours, captioned, crowd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "flat"
    return MemoryBank.open(build(folder, ours, captioned(300), crowd(300), step=120))


@pytest.fixture(scope="module")
def retriever(bank, encoder):
    return Retriever(bank, encoder)


@cache
def vectors_of(bank):
    return bank.vectors(range(len(bank)))


@cache
def keys_of(bank):
    return [document.key for document in bank]


@cache
def document_of(bank, number):
    return bank[number]


@cache
def codes_of(bank):
    return [document.codes for document in bank]


def reference(bank, query, count, excluded=(), cap=0.9):
    """Numbers of the neighbours: the rules over all documents, one after another."""
    vectors = vectors_of(bank)
    relevances = vectors @ query
    chosen, taken = [], set(excluded)
    for number in np.argsort(-relevances, kind="stable").tolist():
        if len(chosen) == count:
            break
        if relevances[number] > cap:
            continue
        if (vectors[chosen] @ vectors[number] > cap).any():
            continue
        document = document_of(bank, number)
        if taken.isdisjoint((document.key, document.codes)):
            chosen.append(number)
            taken |= {document.key, document.codes}
    return chosen


def numbers(neighbours):
    return [one.number for one in neighbours]


def obey(bank, query, neighbours, excluded=(), cap=0.9):
    """Assert every rule of a list of neighbours, and that it tells the truth."""
    rows = numbers(neighbours)
    keys = [one.document.key for one in neighbours]
    assert [one.document for one in neighbours] == [bank[row] for row in rows]
    relevances = [one.relevance for one in neighbours]
    np.testing.assert_allclose(relevances, vectors_of(bank)[rows] @ query, atol=NEAR)
    assert relevances == sorted(relevances, reverse=True)
    assert all(relevance <= cap for relevance in relevances)
    assert len(set(keys)) == len(keys)
    codes = [one.document.codes for one in neighbours]
    assert len(set(codes)) == len(codes)
    assert set(keys + codes).isdisjoint(excluded)
    apart(bank, neighbours, cap)


def apart(bank, neighbours, cap=0.9):
    """Assert that no neighbour all but repeats another one."""
    vectors = bank.vectors(numbers(neighbours))
    assert (np.triu(vectors @ vectors.T, 1) <= cap + NEAR).all()


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("count", [1, 2, 15, ALL])
def test_neighbours_are_those_of_the_rules_over_all_documents(
    bank, encoder, crowd, count, cap
):
    retriever = Retriever(bank, encoder, RetrieverConfig(most_relevance=cap))
    queries = crowd(5, seed=1)
    found = retriever.by_vector(queries, count, [()] * len(queries))
    for query, neighbours in zip(queries, found, strict=True):
        obey(bank, query, neighbours, cap=cap)
        assert numbers(neighbours) == reference(bank, query, count, cap=cap)


def test_documents_of_the_bank_never_find_themselves(bank, retriever):
    queries = bank.vectors(range(0, 300, 20))
    for number, neighbours in enumerate(
        retriever.by_vector(queries, 5, [()] * len(queries))
    ):
        assert 20 * number not in numbers(neighbours)
        assert numbers(neighbours) == reference(bank, queries[number], 5)


def test_excluded_pictures_never_come_back(bank, retriever, crowd):
    queries = crowd(8, seed=2)
    plain = retriever.by_vector(queries, 4, [()] * len(queries))
    excluded = [{one.document.key for one in found[:3]} for found in plain]
    again = retriever.by_vector(queries, 4, excluded)
    for query, neighbours, keys in zip(queries, again, excluded, strict=True):
        obey(bank, query, neighbours, keys)
        assert numbers(neighbours) == reference(bank, query, 4, keys)
    everyone = keys_of(bank)
    assert retriever.by_vector(queries[:2], 4, [everyone, everyone[1:]]) == [
        [],
        retriever.by_vector(queries[1:2], ALL, [everyone[1:]])[0],
    ]


def test_a_picture_never_comes_back_under_another_key_and_caption(
    bank, retriever, crowd
):
    """Numbers that differ by 64 have equal codes here: they are one picture."""
    query = crowd(1, seed=8)
    (plain,) = retriever.by_vector(query, ALL, [()])
    first = plain[0].document.codes
    twins = [row for row, codes in enumerate(codes_of(bank)) if codes == first]
    assert len(twins) in (4, 5)
    assert len(set(twins) & set(numbers(plain))) == 1
    (again,) = retriever.by_vector(query, ALL, [[first]])
    assert set(twins).isdisjoint(numbers(again))
    assert numbers(again) == reference(bank, query[0], ALL, [first])


def test_fewer_come_back_where_fewer_pass(bank, retriever, crowd):
    queries = crowd(6, seed=3)
    some = retriever.by_vector(queries, 3, [()] * len(queries))
    every = retriever.by_vector(queries, ALL, [()] * len(queries))
    for query, few, many in zip(queries, some, every, strict=True):
        assert len(few) == 3 < len(many) < len(bank) / 2
        assert many[:3] == few
        assert numbers(many) == reference(bank, query, ALL)


def test_a_list_begins_with_the_shorter_one(retriever, crowd):
    query = crowd(1, seed=4)
    lists = [retriever.by_vector(query, count, [()])[0] for count in range(12)]
    for count, neighbours in enumerate(lists):
        assert neighbours == lists[-1][:count]


def test_a_query_among_others_finds_what_it_finds_alone(retriever, crowd):
    queries = crowd(7, seed=5)
    alone = [
        retriever.by_vector(queries[row : row + 1], 6, [()])[0] for row in range(7)
    ]
    together = retriever.by_vector(queries, 6, [()] * 7)
    assert [numbers(found) for found in together] == [numbers(one) for one in alone]


def test_nothing_asked_for_is_nothing_found(retriever, crowd, pictures):
    queries = crowd(3)
    assert retriever.by_vector(queries, 0, [()] * 3) == [[], [], []]
    assert retriever.by_vector(queries[:0], 5, []) == []
    assert retriever.by_text([], 5) == retriever.by_image([], 5) == []
    assert retriever.by_text(["a red apple"], 0) == [[]]


def test_fewer_than_none_is_refused(retriever, crowd, pictures):
    for ask in (
        lambda: retriever.by_vector(crowd(3), -1, [()] * 3),
        lambda: retriever.by_text(["a red apple"], -1),
        lambda: retriever.by_image(pictures, -1),
    ):
        with pytest.raises(ConfigError, match="neighbours is -1, below 0"):
            ask()


def test_a_cap_of_one_caps_nothing(
    bank, encoder, build, ours, captioned, crowd, tmp_path
):
    vectors = np.repeat(crowd(20), 2, axis=0)  # everyone is there twice
    folder = build(tmp_path / "bank", ours, captioned(40), vectors)
    open_to_all = RetrieverConfig(most_relevance=1.0)
    retriever = Retriever(MemoryBank.open(folder), encoder, open_to_all)
    for neighbours in retriever.by_vector(vectors, ALL, [()] * 40):
        assert sorted(numbers(neighbours)) == list(range(40))


@pytest.mark.parametrize("memory", [4 << 30, 60_000])
def test_the_rules_hold_whatever_the_index(
    memory, build, encoder, ours, captioned, crowd, tmp_path
):
    settings = IndexSettings(exact_below=1_000, memory_bytes=memory)
    vectors, queries = crowd(1_200), crowd(10, seed=6)
    folder = build(tmp_path / "b", ours, captioned(1_200), vectors, settings, step=600)
    bank = MemoryBank.open(folder)
    assert bank.manifest.index.choice.kind == ("hnsw" if memory > 60_000 else "ivfpq")
    retriever = Retriever(bank, encoder)
    for query, neighbours in zip(
        queries, retriever.by_vector(queries, 4, [["picture 3"]] * 10), strict=True
    ):
        obey(bank, query, neighbours, ["picture 3"])
        assert len(neighbours) == 4
    every = retriever.by_vector(queries[:2], ALL, [()] * 2)
    for query, neighbours in zip(queries, every, strict=False):
        assert numbers(neighbours) == reference(bank, query, ALL)


def test_what_was_removed_never_comes_back(
    build, encoder, ours, captioned, crowd, tmp_path
):
    folder = build(tmp_path / "bank", ours, captioned(100), crowd(100), step=30)
    query = crowd(1, seed=7)
    first = Retriever(MemoryBank.open(folder), encoder).by_vector(query, 5, [()])[0]
    gone = {one.document.key for one in first}
    remove(folder, gone)
    bank = MemoryBank.open(folder)
    (second,) = Retriever(bank, encoder).by_vector(query, 5, [()])
    obey(bank, query[0], second, gone)
    assert numbers(second) == reference(bank, query[0], 5)


# Training


def pool(bank, text, image, own, rules):
    """Numbers of the neighbours of a document that may be kept, in order."""
    both = [
        *reference(bank, text, rules.by_text, own, rules.most_relevance),
        *reference(bank, image, rules.by_image, own, rules.most_relevance),
    ]
    vectors, codes = vectors_of(bank), codes_of(bank)
    chosen = []
    for number in both:
        if (vectors[chosen] @ vectors[number] > rules.most_relevance).any():
            continue
        if codes[number] not in [codes[other] for other in chosen]:
            chosen.append(number)
    return chosen


@pytest.fixture(scope="module")
def batch(bank, clustered):
    """Documents of the bank: vectors of their texts and pictures, keys and codes."""
    random = np.random.default_rng(8)
    middle = bank.vectors(range(12))
    noise = 0.3 * random.standard_normal((2, 12, 8)).astype(np.float32)
    texts, images = (
        part / np.linalg.norm(part, axis=1, keepdims=True) for part in middle + noise
    )
    own = [*zip(keys_of(bank)[:12], codes_of(bank)[:12], strict=True)]
    return texts, images, own


@pytest.mark.parametrize(
    "rules",
    [
        RetrieverConfig(),
        RetrieverConfig(by_text=4, by_image=0),
        RetrieverConfig(by_text=0, by_image=3),
        RetrieverConfig(most_relevance=0.5, by_text=5, by_image=5),
        RetrieverConfig(by_text=0, by_image=0),
    ],
)
def test_candidates_for_training_are_those_by_text_and_by_picture(
    bank, encoder, batch, rules
):
    found = Retriever(bank, encoder, rules).candidates(*batch)
    assert len(found) == 12
    for neighbours, text, image, own in zip(found, *batch, strict=True):
        assert numbers(neighbours) == pool(bank, text, image, own, rules)
        assert len(neighbours) <= rules.by_text + rules.by_image
        assert len(set(numbers(neighbours))) == len(neighbours)
        for one in neighbours:
            assert {one.document.key, one.document.codes}.isdisjoint(own)
        apart(bank, neighbours, rules.most_relevance)


def at(*angles):
    """Unit vectors of width 8 in the plane of the first two axes."""
    vectors = np.zeros((len(angles), 8), dtype=np.float32)
    vectors[:, 0], vectors[:, 1] = (
        np.cos(np.radians(angles)),
        np.sin(np.radians(angles)),
    )
    return vectors


@pytest.mark.parametrize("by_text", [1, 2])
def test_in_training_a_picture_does_not_bring_back_what_a_text_found(
    build, encoder, ours, captioned, by_text, tmp_path
):
    """From 0 degrees the first is at 30, from 62 at 32; the two are all but equal."""
    folder = build(tmp_path / "b", ours, captioned(3), at(30, 32, 170))
    config = RetrieverConfig(by_text=by_text, by_image=1)
    retriever = Retriever(MemoryBank.open(folder), encoder, config)
    (text,) = retriever.by_vector(at(0), 1, [()])
    (image,) = retriever.by_vector(at(62), 1, [()])
    assert numbers(text) == [0]
    assert numbers(image) == [1]
    (found,) = retriever.candidates(at(0), at(62), [["another"]])
    assert numbers(found) == [0, 2][:by_text]


# With a bi-encoder

TEXTS = ["a red apple", "two cats", "zzz", "the blue car seen from its side"]


@pytest.fixture(scope="module")
def real(encoder, build, ours, pictures, tmp_path_factory):
    """Pictures with captions, encoded; random weights put them near each other."""
    documents, texts, images = [], [], []
    for text in TEXTS:
        for place, picture in enumerate(pictures):
            codes = (len(documents), 2, 3, 4)
            documents.append(
                BankDocument(key=f"{text} {place}", text=text, codes=codes)
            )
            texts.append(text)
            images.append(picture)
    vectors = document_vectors(encoder.texts(texts), encoder.images(images)).numpy()
    folder = tmp_path_factory.mktemp("real") / "bank"
    bank = MemoryBank.open(build(folder, ours, documents, vectors))
    return Retriever(bank, encoder, RetrieverConfig(most_relevance=0.999))


def test_a_text_finds_what_its_vector_finds(real, encoder):
    asked = ["a red apple", "a dog"]
    vectors = encoder.texts(asked).numpy()
    excluded = ["a red apple 0", "zzz 3"]
    found = real.by_text(asked, 5, excluded)
    plain = real.by_vector(vectors, 5, [excluded] * 2)
    for text, vector, neighbours, others in zip(
        asked, vectors, found, plain, strict=True
    ):
        assert numbers(neighbours) == numbers(others)
        assert numbers(neighbours) == numbers(real.by_text([text], 5, excluded)[0])
        assert numbers(neighbours) == reference(real.bank, vector, 5, excluded, 0.999)
        obey(real.bank, vector, neighbours, excluded, 0.999)
        assert neighbours


def test_a_picture_finds_what_its_vector_finds(real, encoder, pictures):
    vectors = encoder.images(pictures).numpy()
    found = real.by_image(pictures, 3, ["zzz 3"])
    for vector, neighbours in zip(vectors, found, strict=True):
        assert numbers(neighbours) == reference(real.bank, vector, 3, ["zzz 3"], 0.999)
        obey(real.bank, vector, neighbours, ["zzz 3"], 0.999)
        assert neighbours


def test_the_rules_hold_for_what_ships():
    """The bi-encoder and the bank of the package, against comparing all documents."""
    folder = located(None)
    encoder = BiEncoder.load(folder / "bi_encoder")
    bank = MemoryBank.open(folder / "memory")
    retriever = Retriever(bank, encoder)
    texts = ["a red apple", "a cat", "zorbit", *(bank[row].text for row in (0, 20_000))]
    picture = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(picture).ellipse((12, 12, 52, 52), fill="red")
    queries = np.concatenate([encoder.texts(texts), encoder.images([picture])])
    excluded = [()] * len(queries)
    found = retriever.by_vector(queries, 6, excluded)
    assert found[: len(texts)] == retriever.by_text(texts, 6)
    assert found[len(texts) :] == retriever.by_image([picture], 6)
    plain = bank.search(queries, 6)[1].tolist()
    for query, neighbours in zip(queries, found, strict=True):
        assert len(neighbours) == 6
        obey(bank, query, neighbours)
        assert numbers(neighbours) == reference(bank, query, 6)
    assert [numbers(neighbours) for neighbours in found] != plain  # rules do take some
    own = [{one.document.codes for one in some[:2]} for some in found]
    for query, codes, neighbours in zip(
        queries, own, retriever.by_vector(queries, 6, own), strict=True
    ):
        assert numbers(neighbours) == reference(bank, query, 6, codes)


def test_a_bank_of_another_bi_encoder_is_refused(
    build, encoder, config, captioned, clustered, tmp_path
):
    bank = MemoryBank.open(build(tmp_path / "b", config, captioned(9), clustered(9)))
    with pytest.raises(ConfigError, match="another bi-encoder; build it again") as e:
        Retriever(bank, encoder)
    assert "\n" not in str(e.value)


# Settings and words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"most_relevance": 0.0}, r"most_relevance is 0.0, outside \(0, 1\]"),
        ({"most_relevance": 1.1}, "most_relevance is 1.1, outside"),
        ({"query_dropout": 1.0}, r"query_dropout is 1.0, outside \[0, 1\)"),
        ({"query_dropout": -0.1}, "query_dropout is -0.1, outside"),
        ({"by_text": -1}, "by_text is -1, below 0"),
        ({"by_image": -2}, "by_image is -2, below 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        RetrieverConfig(**changes)


def test_the_rules_are_the_papers():
    config = RetrieverConfig()
    assert (config.most_relevance, config.query_dropout) == (0.9, 0.2)
    assert (config.by_text, config.by_image) == (2, 2)


@given(
    st.lists(st.text("ab c\t\n", max_size=6), max_size=9).map(" ".join),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_dropped_words_leave_the_others_in_order_and_never_none(text, share, seed):
    words = text.split()
    left = drop_words(text, share, np.random.default_rng(seed)).split()
    rest = iter(words)
    assert all(word in rest for word in left)
    assert bool(left) == bool(words)
    assert drop_words(text, share, np.random.default_rng(seed)).split() == left


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_about_the_share_of_words_is_dropped(share):
    text = " ".join(f"w{number}" for number in range(4_000))
    left = drop_words(text, share, np.random.default_rng(0)).split()
    assert len(left) / 4_000 == pytest.approx(1 - share, abs=0.03)
    assert (len(left) == 4_000) == (share == 0)


def test_of_words_that_all_were_to_go_each_stays_at_times():
    random = np.random.default_rng(0)
    kept = [drop_words("a red apple", 1.0, random) for _ in range(60)]
    assert set(kept) == {"a", "red", "apple"}
