"""How close a decoded picture is to its original, by scikit-image."""

import numpy as np
from PIL import Image


def psnr(original: Image.Image, decoded: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB over the RGB values; higher is closer."""
    from skimage.metrics import peak_signal_noise_ratio

    left, right = np.asarray(original), np.asarray(decoded)
    if np.array_equal(left, right):
        return 99.0  # the ratio is infinite, which no mean survives
    return float(peak_signal_noise_ratio(left, right, data_range=255))


def ssim(original: Image.Image, decoded: Image.Image) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window, mean of RGB; <= 1."""
    from skimage.metrics import structural_similarity

    value = structural_similarity(
        np.asarray(original),
        np.asarray(decoded),
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)
