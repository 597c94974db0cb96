import pickle

import numpy as np
import pytest
from PIL import Image, ImageOps

from cm3leon.data.build import build_shards, may_mirror, moved, versions_of
from cm3leon.data.pictures import Pictures
from cm3leon.data.shards import Shards
from cm3leon.errors import DataError
from cm3leon.images.tokenizer import ImageTokenizer

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
