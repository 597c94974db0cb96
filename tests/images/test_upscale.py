import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.images.quality import psnr
from cm3leon.images.upscale import TIMES, Upscaler


@pytest.fixture(scope="module")
def upscaler():
    return Upscaler()


def disc(side):
    """A red disc on white, smooth at its edge."""
    image = Image.new("RGB", (8 * side, 8 * side), "white")
    edge = side * 8
    ImageDraw.Draw(image).ellipse(
        (edge // 6, edge // 6, edge * 2 // 3, edge * 2 // 3), "red"
    )
    return image.resize((side, side), Image.Resampling.BOX)


def test_a_picture_grows_and_stays_itself(upscaler):
    small = disc(64)
    large = upscaler(small)
    assert large.size == (64 * TIMES, 64 * TIMES)
    assert psnr(large.resize((64, 64), Image.Resampling.BOX), small) > 25


def test_edges_are_sharper_than_by_interpolation(upscaler):
    """Nearer to the disc drawn large than interpolation is."""
    wanted, small = disc(256), disc(64)
    plain = small.resize((256, 256), Image.Resampling.BICUBIC)
    assert psnr(upscaler(small), wanted) > psnr(plain, wanted)


def test_any_shape_and_mode(upscaler):
    assert upscaler(Image.new("L", (20, 12), 100)).size == (80, 48)


def test_the_same_picture_grows_the_same_way(upscaler):
    first, again = (np.asarray(upscaler(disc(32))) for _ in range(2))
    assert np.array_equal(first, again)
