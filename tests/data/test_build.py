import pickle
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from cm3leon.data.bank import bank_config, fill
from cm3leon.data.build import (
    NeighbourSearch,
    build_shards,
    may_mirror,
    moved,
    versions_of,
)
from cm3leon.data.pictures import Picture, Pictures
from cm3leon.data.shards import Shards
from cm3leon.errors import DataError
from cm3leon.images.tokenizer import ImageTokenizer
from cm3leon.retrieval.memory import BankDocument, BankWriter, MemoryBank
from cm3leon.retrieval.retriever import Retriever, RetrieverConfig
from cm3leon.training.bi_encoder import PRESETS, untrained

CAPTIONS = ["a red square", "an arrow to the left", "a blue square", "a green square"]


@pytest.fixture
def pictures(tmp_path, noise_pictures):
    """A folder of ten pictures of which one is cut short."""
    rows = [{"text": CAPTIONS[number % 4]} for number in range(10)]
    folder = noise_pictures(tmp_path / "pictures", rows, cut=7, side=20)
    return Pictures.open(folder, cache=tmp_path / "cache")


def test_a_record_holds_the_captions_and_codes_of_its_picture(
    pictures, tokenizers, tmp_path, text_tokenizer
):
    report = pictures.scan()
    assert [problem.name.rpartition("/")[2] for problem in report.problems] == ["7.png"]
    assert build_shards(pictures, tmp_path / "out", tokenizers, size=4).good == 9
    shards = Shards(tmp_path / "out")
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    for number in range(len(shards)):
        text, image = shards[number].segments
        picture = pictures[number]
        assert text.alternatives == (tuple(text_tokenizer.encode(picture.caption)),)
        versions = [picture.image]
        if "arrow" not in picture.caption:
            versions.append(ImageOps.mirror(picture.image))
        codes = image_tokenizer.encode(versions).tolist()
        assert image.alternatives == tuple(map(tuple, codes))


def test_only_pictures_without_a_side_are_mirrored(pictures):
    allowed = [may_mirror(pictures[number]) for number in range(4)]
    assert allowed == [True, False, True, True]


class Killed(Exception):
    pass


def test_a_build_that_was_killed_makes_what_is_missing_to_the_same_bytes(
    pictures, tokenizers, tmp_path
):
    build_shards(pictures, tmp_path / "straight", tokenizers, size=2)

    def kill(done):
        if done == 4:
            raise Killed

    folder = tmp_path / "resumed"
    with pytest.raises(Killed):
        build_shards(pictures, folder, tokenizers, size=2, on_progress=kill)
    with pytest.raises(DataError, match="holds no token shards"):
        Shards(folder)
    assert (folder / "shard-00001.arrow").exists()
    (folder / "shard-00002.partial").write_bytes(b"half a shard")
    build_shards(pictures, folder, tokenizers, size=2)
    equal(tmp_path / "straight", folder)


def equal(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_only_shards_that_are_not_whole_are_made_again(
    pictures, tokenizers, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    first = build_shards(pictures, out, tokenizers, size=2)
    before = {path: path.read_bytes() for path in out.iterdir()}
    cut, altered, gone = sorted(out.glob("*.arrow"))[1:4]
    cut.write_bytes(before[cut][:-100])
    turned = bytearray(before[altered])
    turned[len(turned) // 2] ^= 1
    altered.write_bytes(turned)
    gone.unlink()
    made = []
    encode = ImageTokenizer.encode
    monkeypatch.setattr(
        ImageTokenizer,
        "encode",
        lambda self, images: made.append(images) or encode(self, images),
    )
    assert build_shards(pictures, out, tokenizers, size=2) == first
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert len(made) == 3


def test_a_shard_of_other_pictures_is_made_again(pictures, tokenizers, tmp_path):
    build_shards(pictures, tmp_path / "out", tokenizers, size=4)
    folder = tmp_path / "pictures"
    (folder / "0.png").unlink()
    fewer = Pictures.open(folder, cache=tmp_path / "cache")
    assert build_shards(fewer, tmp_path / "out", tokenizers, size=4).good == 8
    build_shards(fewer, tmp_path / "fresh", tokenizers, size=4)
    equal(tmp_path / "fresh", tmp_path / "out")


def test_a_pickled_collection_is_opened_where_it_is_unpickled(pictures, tmp_path):
    pictures.scan()
    again = pickle.loads(pickle.dumps(pictures))
    assert list(again.ids()) == list(pictures.ids())
    assert again.report == pictures.report
    pickled = pickle.dumps(pictures)
    (tmp_path / "pictures/3.png").rename(tmp_path / "pictures/3.txt")
    with pytest.raises(DataError, match="give every machine the same files"):
        pickle.loads(pickled)


def test_a_folder_of_other_tokenizers_is_left_alone(pictures, tokenizers, tmp_path):
    pictures.scan()
    build_shards(pictures, tmp_path / "out", tokenizers)
    file = tokenizers / "text_tokenizer.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match="shards of other tokenizers"):
        build_shards(pictures, tmp_path / "out", tokenizers)


@pytest.mark.parametrize("other", [{"size": 4}, {"mirror": False}])
def test_a_build_of_other_settings_is_left_alone(pictures, tokenizers, tmp_path, other):
    build_shards(pictures, tmp_path / "out", tokenizers, size=2)
    with pytest.raises(DataError, match="versions or sizes; give another folder"):
        build_shards(pictures, tmp_path / "out", tokenizers, **{"size": 2} | other)


def test_moved_versions_follow_the_picture_and_its_mirror_image(
    pictures, tokenizers, tmp_path
):
    pictures.scan()
    build_shards(pictures, tmp_path / "out", tokenizers, versions=3)
    shards = Shards(tmp_path / "out")
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    for number in range(len(shards)):
        versions = versions_of(pictures[number], mirror=True, extra=3)
        assert len(versions) == 4 + may_mirror(pictures[number])
        codes = image_tokenizer.encode(versions).tolist()
        assert shards[number].segments[1].alternatives == tuple(map(tuple, codes))
    with pytest.raises(DataError, match="other tokenizers, neighbours, versions"):
        build_shards(pictures, tmp_path / "out", tokenizers, versions=2)


def mean_place(image):
    """Where a picture is dark, as shares of its width and height."""
    dark = 255.0 - np.asarray(image.convert("L"), dtype=float)
    rows, columns = np.mgrid[: dark.shape[0], : dark.shape[1]] + 0.5
    places = (columns * dark).sum() / dark.sum(), (rows * dark).sum() / dark.sum()
    return np.array(places) / image.size


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_picture_stays_whole_near_its_place_and_its_size(seed):
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (16, 20, 44, 48))
    turned = moved(image, np.random.default_rng(seed))
    assert turned.size == image.size
    off = np.abs(mean_place(turned) - mean_place(image)).max()
    assert 0 < off < 0.1
    dark = [
        (255 - np.asarray(one.convert("L"), float)).sum() for one in (image, turned)
    ]
    assert 0.6 < dark[1] / dark[0] < 1.15


@pytest.mark.parametrize("seed", range(5))
def test_a_picture_that_fills_its_frame_shows_no_white_when_moved(seed):
    turned = moved(Image.new("RGB", (64, 64), "navy"), np.random.default_rng(seed))
    assert np.asarray(turned).max(axis=(0, 1)).tolist() == [0, 0, 128]


# Neighbours

WORDS = ("a", "red", "apple", "two", "cats")


@pytest.fixture
def encoder(tokenizers):
    """A tiny untrained bi-encoder."""
    torch.manual_seed(3)
    return untrained(PRESETS["tiny"], tokenizers / "text_tokenizer.json")


@pytest.fixture
def ask(encoder, tokenizers, tmp_path):
    """What forty pictures of one caption look for, by a seed and a share of dropout.

    The bank holds every text that some words of the caption make, at the text's own
    vector: the nearest document tells the query.
    """
    config = bank_config(encoder, ImageTokenizer.load(tokenizers / "image_tokenizer"))
    size, most = config.codes_per_image, config.codebook_size
    texts = [
        " ".join(words) for count in range(1, 6) for words in combinations(WORDS, count)
    ]
    documents = [
        BankDocument(key=text, text=text, codes=(number % most,) * size)
        for number, text in enumerate(texts)
    ]
    writer = BankWriter(tmp_path / "bank", config)
    writer.add(documents, encoder.texts(texts).numpy())
    writer.finish()
    bank = MemoryBank.open(tmp_path / "bank")
    caption, image = " ".join(WORDS), Image.new("RGB", (16, 16))
    pictures = [
        Picture(id=f"{number}", image=image, caption=caption, captions=(caption,))
        for number in range(40)
    ]

    def ask(seed=0, share=0.2, codes=()):
        rules = RetrieverConfig(
            most_relevance=1.0, query_dropout=share, by_text=1, by_image=0
        )
        search = NeighbourSearch(Retriever(bank, encoder, rules), seed)
        return [one.text for [one] in search(pictures, [codes] * 40)]

    return ask


def test_words_are_left_out_of_a_query_and_which_the_seed_decides(ask):
    asked = ask()
    assert len(set(asked)) > 5
    assert np.mean([len(text.split()) for text in asked]) == pytest.approx(4, abs=0.4)
    assert asked == ask()
    assert asked != ask(seed=1)
    assert set(ask(share=0.0)) == {" ".join(WORDS)}


def test_a_picture_with_the_codes_of_a_document_does_not_find_it(ask):
    whole = 2**5 - 2  # the last text's number
    other = set(ask(share=0.0, codes=[(0,) * 16, (whole,) * 16]))
    assert len(other) == 1
    assert other.isdisjoint([" ".join(WORDS), WORDS[0]])


def test_no_picture_stands_before_itself_under_another_name_and_caption(
    pictures, tokenizers, encoder, noise_pictures, tmp_path
):
    image_tokenizer = ImageTokenizer.load(tokenizers / "image_tokenizer")
    rows = [{"text": f"number {number}"} for number in range(10)]
    (tmp_path / "more").mkdir()
    folder = noise_pictures(tmp_path / "more" / "same", rows, cut=7, side=20)
    others = Pictures.open(folder.parent, cache=tmp_path / "cache")
    writer = BankWriter(tmp_path / "bank", bank_config(encoder, image_tokenizer))
    assert fill(writer, others, encoder, image_tokenizer).added == 9
    writer.finish()
    bank = MemoryBank.open(tmp_path / "bank")
    rules = RetrieverConfig(most_relevance=1.0, by_text=9, by_image=9)
    search = NeighbourSearch(Retriever(bank, encoder, rules))
    build_shards(pictures, tmp_path / "out", tokenizers, search=search)
    shards = Shards(tmp_path / "out")
    assert len(shards) == 9
    for number in range(9):
        record = shards[number]
        codes = [image.alternatives[0] for _, image in record.neighbours]
        assert len(set(codes)) == 8
        assert set(codes).isdisjoint(record.segments[1].alternatives)
