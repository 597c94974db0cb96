import math

import numpy as np
import pytest
from PIL import Image

from cm3leon.images.quality import psnr, ssim


def brighter(image, by):
    return Image.fromarray(np.asarray(image) // 2 + np.uint8(by))


def test_an_equal_picture_is_best(pictures):
    assert psnr(pictures[0], pictures[0]) == 99.0
    assert ssim(pictures[0], pictures[0]) == pytest.approx(1)


def test_psnr_is_the_formula(pictures):
    error = 12
    found = psnr(brighter(pictures[0], 0), brighter(pictures[0], error))
    assert found == pytest.approx(10 * math.log10(255**2 / error**2))


@pytest.mark.parametrize("quality", [psnr, ssim])
def test_a_larger_error_is_worse_and_order_does_not_matter(quality, pictures):
    original = brighter(pictures[0], 0)
    near, far = brighter(pictures[0], 5), brighter(pictures[0], 50)
    assert quality(original, near) > quality(original, far)
    assert quality(original, near) == pytest.approx(quality(near, original))
    assert quality(original, pictures[1]) < quality(original, near)
