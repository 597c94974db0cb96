"""Documents, and pictures read from files."""

import PIL.Image
import pytest

from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document, Hole, Image, Text


def test_a_document_knows_its_words_pictures_and_holes():
    first, second = Image(codes=(1,)), Image(codes=(2,))
    hole = Hole("image")
    document = Document(Text("a"), first, Text("b"), hole, second)
    assert document.segments == (Text("a"), first, Text("b"), hole, second)
    assert document.text == "a b"
    assert document.images == [first, second]
    assert document.holes == [hole]


def test_documents_of_the_same_segments_are_equal():
    assert Document(Text("a"), Hole()) == Document(Text("a"), Hole("text"))
    assert len({Document(Text("a")), Document(Text("a"))}) == 1


def test_a_picture_saved_is_the_picture_opened(tmp_path):
    pixels = PIL.Image.new("RGB", (3, 2), (200, 10, 30))
    Image(pixels=pixels).save(tmp_path / "a.png")
    opened = Image.open(tmp_path / "a.png").pixels
    assert opened is not None
    assert (opened.size, opened.tobytes()) == (pixels.size, pixels.tobytes())


def test_codes_alone_cannot_be_saved(tmp_path):
    with pytest.raises(RequestError, match="decode"):
        Image(codes=(1,)).save(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "webp", "bmp", "ppm"])
def test_a_damaged_picture_is_refused_by_its_name(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    PIL.Image.effect_noise((40, 40), 50).convert("RGB").save(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 3], b"", b"words", b"P6 x0 y0 255\n"):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=path.name):
            Image.open(path)


def test_a_missing_picture_or_a_folder_is_refused_by_its_name(tmp_path):
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(RequestError, match=path.name):
            Image.open(path)


def test_a_picture_far_too_large_is_refused(tmp_path, monkeypatch):
    PIL.Image.new("L", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RequestError, match="too many pixels"):
        Image.open(tmp_path / "a.png")
