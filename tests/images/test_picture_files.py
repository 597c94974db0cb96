import io

import numpy as np
import pytest
from PIL import Image

from cm3leon.images.picture_files import Refusal, decode


def encoded(size=(8, 6), form="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new("RGB", size, (220, 20, 20)).convert(mode).save(file, form)
    return file.getvalue()


def test_transparent_parts_become_white():
    file = io.BytesIO()
    Image.new("RGBA", (2, 2), (0, 0, 0, 0)).save(file, "PNG")
    assert decode(file.getvalue()).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_keep_their_shades():
    file = io.BytesIO()
    levels = np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)
    Image.fromarray(levels).save(file, "PNG")
    assert [decode(file.getvalue()).getpixel((x, 0))[0] for x in range(3)] == [
        0,
        100,
        255,
    ]


def test_a_picture_is_upright():
    file = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 4)).save(file, "JPEG", exif=turned)
    assert decode(file.getvalue()).size == (4, 8)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(mode):
    form = "TIFF" if mode == "CMYK" else "PNG"
    assert decode(encoded(mode=mode, form=form)).mode == "RGB"


def test_what_would_be_run_is_not_opened():
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    assert isinstance(decode(program), Refusal)


def test_every_cut_of_a_picture_is_refused_quietly():
    for form in ("PNG", "JPEG", "WEBP", "GIF"):
        whole = encoded(size=(40, 40), form=form)
        for end in range(0, len(whole) // 2, 7):
            assert isinstance(decode(whole[:end]), Refusal)
