import json

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
def pictures(tmp_path):
    """A folder of ten pictures of which one is cut short."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(10):
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        text = CAPTIONS[number % 4]
        lines.append(json.dumps({"file_name": path.name, "text": text}))
    cut = folder / "7.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return Pictures.open(folder, cache=tmp_path / "cache")


def test_a_record_holds_the_captions_and_codes_of_its_picture(
    pictures, tokenizers, tmp_path, text_tokenizer
):
    report = pictures.scan()
    assert [problem.name.rpartition("/")[2] for problem in report.problems] == ["7.png"]
    assert build_shards(pictures, tmp_path / "out", tokenizers, size=4) == 9
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


def test_a_build_that_was_killed_resumes_to_the_same_shards(
    pictures, tokenizers, tmp_path
):
    pictures.scan()
    build_shards(pictures, tmp_path / "straight", tokenizers, size=2)

    class Killed(Exception):
        pass

    done = []

    def kill(count):
        done.append(count)
        raise Killed

    folder = tmp_path / "resumed"
    with pytest.raises(Killed):
        build_shards(pictures, folder, tokenizers, size=2, on_progress=kill)
    assert len(Shards(folder)) == 8  # the last, half-filled shard was lost
    build_shards(pictures, folder, tokenizers, size=2)
    for path in sorted((tmp_path / "straight").iterdir()):
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_a_folder_of_other_tokenizers_is_left_alone(pictures, tokenizers, tmp_path):
    pictures.scan()
    build_shards(pictures, tmp_path / "out", tokenizers)
    file = tokenizers / "text_tokenizer.json"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match="shards of other tokenizers"):
        build_shards(pictures, tmp_path / "out", tokenizers)


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
    with pytest.raises(DataError, match="other tokenizers, neighbours or versions"):
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
