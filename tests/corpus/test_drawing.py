import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.corpus.colours import PALETTE, colour_name, main_colours
from cm3leon.corpus.drawing import (
    SIDE,
    contain,
    cover,
    draw_svg,
    draw_svg_text,
    is_blank,
    is_grey,
)
from cm3leon.corpus.staging import thumbnail


def picture(size, box, colour="red"):
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle(box, fill=colour)
    return image


def drawn(image):
    """Left, top, right and bottom of what is not white, as shares of the side."""
    rows, columns = np.where(np.asarray(image).min(axis=2) < 200)
    return [
        columns.min() / SIDE,
        rows.min() / SIDE,
        (columns.max() + 1) / SIDE,
        (rows.max() + 1) / SIDE,
    ]


def test_what_is_drawn_fills_the_square_and_keeps_its_proportions():
    left, top, right, bottom = drawn(contain(picture((500, 300), (10, 20, 109, 69))))
    assert (left, right) == pytest.approx((0.028, 0.972), abs=0.01)
    assert (bottom - top) / (right - left) == pytest.approx(0.5, abs=0.02)
    assert top + bottom == pytest.approx(1, abs=0.02)


def test_nothing_drawn_gives_nothing():
    assert contain(Image.new("RGB", (40, 30), "white")) is None


def test_without_trimming_the_border_stays():
    image = contain(picture((100, 100), (25, 25, 74, 74)), trim=False, margin=0.0)
    assert drawn(image) == pytest.approx([0.25, 0.25, 0.75, 0.75], abs=0.01)


def test_the_ends_of_a_wide_picture_are_two_pictures():
    wide = picture((200, 100), (0, 0, 99, 99))
    assert np.asarray(cover(wide, at=0.0)).mean(axis=(0, 1)).tolist() == [255, 0, 0]
    assert is_blank(cover(wide, at=1.0))


def test_svg_is_drawn_on_white():
    svg = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4">{}</svg>'
    image = draw_svg(svg.format('<path d="M1 1h2v2H1z" fill="#00f"/>'))
    assert image.size == (SIDE, SIDE)
    assert image.getpixel((0, 0)) == (255, 255, 255)
    assert image.getpixel((SIDE // 2, SIDE // 2)) == (0, 0, 255)


@pytest.mark.parametrize("text", ["", "no svg", "<svg/>x", "<a"])
def test_what_is_no_svg_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        draw_svg_text(text, width=9)


def test_grey_and_blank_are_told():
    assert is_grey(Image.new("RGB", (SIDE, SIDE), (90, 91, 92)))
    assert not is_grey(Image.new("RGB", (SIDE, SIDE), (90, 91, 99)))
    assert is_blank(Image.new("RGB", (SIDE, SIDE), (90, 91, 92)))
    assert not is_blank(picture((SIDE, SIDE), (0, 0, 60, 60)))


@pytest.mark.parametrize("name", PALETTE)
def test_each_named_colour_is_its_own_name(name):
    assert colour_name("#{:02x}{:02x}{:02x}".format(*PALETTE[name])) == name


def test_the_main_colours_are_those_of_the_larger_parts():
    image = picture((SIDE, SIDE), (0, 0, 127, 40), PALETTE["red"])
    ImageDraw.Draw(image).rectangle((0, 50, 127, 70), fill=PALETTE["blue"])
    ImageDraw.Draw(image).rectangle((0, 80, 127, 82), fill=PALETTE["green"])
    assert main_colours(image) == ("red", "blue")
    assert main_colours(Image.new("RGB", (SIDE, SIDE), "white")) == ()


def test_a_thumbnail_sums_the_squares_of_a_grid():
    random = np.random.default_rng(0)
    levels = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    sums = thumbnail(Image.fromarray(levels)).reshape(16, 16, 3)
    assert sums[3, 5].tolist() == levels[24:32, 40:48].sum(axis=(0, 1)).tolist()
