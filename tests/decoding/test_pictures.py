import os

import pytest
from PIL import Image

from cm3leon.decoding.pictures import enlarge, enlargement, save_new, slug
from cm3leon.errors import RequestError


@pytest.fixture
def picture():
    return Image.linear_gradient("L").resize((16, 16)).convert("RGB")


@pytest.mark.parametrize(
    ("pixels", "size", "times"),
    [(64, None, 4), (16, None, 16), (100, None, 2), (512, None, 1), (64, 640, 10)],
)
def test_a_picture_grows_by_a_whole_number(pixels, size, times):
    assert enlargement(pixels, size) == times


@pytest.mark.parametrize(("size", "near"), [(250, 256), (10, 64), (100, 128)])
def test_another_size_is_refused_with_the_nearest(size, near):
    said = f"size is {size}, not a multiple of the 64 pixels .* the nearest is {near}"
    with pytest.raises(RequestError, match=said):
        enlargement(64, size)


def test_enlarging_keeps_the_picture(picture):
    large = enlarge(picture, 4)
    assert large.size == (64, 64)
    back = large.resize((16, 16), Image.Resampling.BOX)
    pairs = zip(back.tobytes(), picture.tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) < 16
    assert enlarge(picture, 1) is picture


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("A red apple, on a plate!", "a-red-apple-on-a-plate"),
        ("../../etc/passwd", "etc-passwd"),
        ("赤いりんご", "赤いりんご"),
        ("?!", "picture"),
        ("", "picture"),
        ("x" * 500, "x" * 100),
    ],
)
def test_words_become_a_safe_name(words, name):
    assert slug(words) == name
    assert len(os.fsencode(slug("赤" * 500))) <= 100


def test_nothing_is_overwritten(picture, tmp_path):
    path = tmp_path / "new" / "apple-7.png"
    paths = [save_new(picture, path, {}, number=True) for _ in range(3)]
    assert [p.name for p in paths] == ["apple-7.png", "apple-7-2.png", "apple-7-3.png"]
    with pytest.raises(RequestError, match=r"apple-7.png is there already; delete it"):
        save_new(picture, path, {}, number=False)
    assert len(list(path.parent.iterdir())) == 3


def test_notes_are_kept_in_the_file(picture, tmp_path):
    notes = {"prompt": "ein Apfel, 赤い", "options": {"top_p": 0.9}}
    path = save_new(picture, tmp_path / "a.png", notes, number=False)
    with Image.open(path) as read:
        assert read.text == {"prompt": "ein Apfel, 赤い", "options": '{"top_p": 0.9}'}
        assert read.tobytes() == picture.tobytes()


def test_a_write_that_fails_leaves_no_half_picture(picture, tmp_path, monkeypatch):
    def fail(self, file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        save_new(picture, tmp_path / "a.png", {}, number=True)
    assert list(tmp_path.iterdir()) == []
