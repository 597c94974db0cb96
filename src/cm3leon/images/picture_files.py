"""Encoded pictures from anywhere -> RGB on white, or the reason why not.

Only formats of plain bitmaps are opened (PostScript, for one, would be run), the number
of pixels is checked before any is decoded, and whatever a damaged or hostile file makes
the decoder raise comes out as a refusal.
"""

import functools
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cm3leon.images.pixels import on_white

MOST_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO", "ICO")
_NAMES = "jpg jpeg png webp gif bmp tif tiff ppm pgm pnm avif ico"
SUFFIXES = tuple(f".{name}" for name in _NAMES.split(" "))
# What Pillow is known to raise on damaged files.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
)


class Refusal(NamedTuple):
    """Why a picture is not decoded."""

    kind: Literal["unreadable picture", "too many pixels"]
    reason: str


def decode(
    content: bytes | Path, most_pixels: int = MOST_PIXELS
) -> Image.Image | Refusal:
    """A picture upright (EXIF), in RGB on white; of several frames the first.

    Args:
        content: the encoded bytes, or the file they are in.
        most_pixels: width x height above which nothing is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters comes out as an error
        try:
            return _decode(content, most_pixels)
        except Image.DecompressionBombError:
            limit = f"{most_pixels:,} are allowed"
            return Refusal("too many pixels", f"far more than the {limit}")
        except _DAMAGE as error:
            return Refusal("unreadable picture", _reason(error))


def _decode(content: bytes | Path, most_pixels: int) -> Image.Image | Refusal:
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    with Image.open(file, formats=_formats()) as image:
        pixels = image.width * image.height
        if pixels > most_pixels:
            size = f"{image.width} x {image.height} = {pixels:,}"
            return Refusal("too many pixels", f"{size}, {most_pixels:,} are allowed")
        image.load()
        return on_white(_eight_bits(ImageOps.exif_transpose(image)))


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Sixteen-bit grey in 0..255; Pillow would cut all above 255 off."""
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image).astype(np.int64).clip(0, 65_535) // 257
    return Image.fromarray(levels.astype(np.uint8))


def _reason(error: Exception) -> str:
    """In one line, without the memory address Pillow prints."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a format we read"
    text = " ".join(str(error).split())
    return text or type(error).__name__
