"""Names of colours: of one colour, and of the main colours of a picture.

The nearest of fifteen named colours in CIE L*a*b* (D65, Euclidean distance).
"""

from collections import Counter

import numpy as np
from jaxtyping import Float
from PIL import Image

PALETTE = {
    "red": (220, 40, 40),
    "orange": (245, 145, 30),
    "yellow": (250, 215, 60),
    "green": (70, 170, 70),
    "teal": (40, 170, 170),
    "blue": (50, 100, 220),
    "light blue": (130, 200, 250),
    "purple": (140, 70, 190),
    "pink": (245, 140, 180),
    "brown": (130, 80, 45),
    "beige": (240, 210, 170),
    "black": (25, 25, 25),
    "gray": (135, 135, 135),
    "light gray": (205, 205, 210),
    "white": (255, 255, 255),
}
_NAMES = tuple(PALETTE)
_TO_XYZ = np.array(
    [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
)
_WHITE = np.array([0.9505, 1, 1.089])


def lab(rgb: Float[np.ndarray, "colour 3"]) -> Float[np.ndarray, "colour 3"]:
    """SRGB in 0..255 as L*, a*, b*."""
    unit = rgb / 255
    linear = np.where(unit > 0.04045, ((unit + 0.055) / 1.055) ** 2.4, unit / 12.92)
    xyz = linear @ _TO_XYZ / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])],
        axis=1,
    )


_PALETTE_LAB = lab(np.array(list(PALETTE.values()), dtype=float))


def _nearest(rgb: Float[np.ndarray, "colour 3"]) -> list[int]:
    distances = ((lab(rgb)[:, None] - _PALETTE_LAB[None]) ** 2).sum(axis=-1)
    nearest: list[int] = distances.argmin(axis=1).tolist()
    return nearest


def colour_name(hexadecimal: str) -> str:
    """The nearest named colour.

    >>> colour_name("#fc0000")
    'red'
    """
    digits = hexadecimal.lstrip("#")
    rgb = [int(digits[i : i + 2], 16) for i in (0, 2, 4)]
    return _NAMES[_nearest(np.array([rgb], dtype=float))[0]]


def main_colours(image: Image.Image) -> tuple[str, ...]:
    """Up to three colours that each cover 18 % of what is drawn, most first.

    What is drawn is what is not nearly white; too little of it gives no colour.
    """
    small = np.asarray(image.resize((32, 32), Image.Resampling.BOX))
    pixels = small.reshape(-1, 3).astype(float)
    drawn = pixels[(255 - pixels).max(axis=1) > 24]
    if len(drawn) < 20:
        return ()
    counts = Counter(_nearest(drawn)).most_common(3)
    return tuple(
        _NAMES[index]
        for index, count in counts
        if count / len(drawn) >= 0.18 and _NAMES[index] != "white"
    )
