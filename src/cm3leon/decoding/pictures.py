"""Drawn pictures as files: enlarged, named and annotated."""

import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cm3leon.errors import RequestError

SIDE = 256  # pixels that a picture is enlarged to, at most, unless asked
# What the notes of a picture and of a neighbour must hold, and of which type.
PICTURE = dict.fromkeys(("prompt", "seed", "model", "Software"), str)
OWNER = dict.fromkeys(("key", "text", "source", "licence", "author"), str)
NEIGHBOUR = OWNER | {"relevance": (int, float)}
NAME_BYTES = 100  # of the words in a file's name; file systems allow 255 in all


def enlargement(pixels: int, size: int | None) -> int:
    """By which whole number a picture of `pixels` a side grows.

    Args:
        pixels: side of the pictures a model draws.
        size: wanted side; None: as near below 256 as a whole number allows.

    Raises:
        RequestError: `size` is no multiple of `pixels`.

    >>> enlargement(64, None), enlargement(96, None), enlargement(64, 128)
    (4, 2, 2)
    """
    if size is None:
        return max(1, SIDE // pixels)
    if size < pixels or size % pixels:
        near = max(1, round(size / pixels)) * pixels
        raise RequestError(
            f"size is {size}, not a multiple of the {pixels} pixels this model draws; "
            f"the nearest is {near}"
        )
    return size // pixels


def enlarge(picture: Image.Image, times: int) -> Image.Image:
    """The picture with `times` as many pixels a side, smoothly (bicubic)."""
    if times == 1:
        return picture
    size = (picture.width * times, picture.height * times)
    return picture.resize(size, Image.Resampling.BICUBIC)


def slug(words: str) -> str:
    """Words as the beginning of a file's name.

    >>> slug("A red apple, on a plate!")
    'a-red-apple-on-a-plate'
    """
    plain = unicodedata.normalize("NFC", words).lower()
    joined = "-".join(re.findall(r"\w+", plain)).encode()[:NAME_BYTES]
    return joined.decode("utf-8", "ignore").strip("-_") or "picture"


def save_new(
    picture: Image.Image, path: Path, notes: Mapping[str, Any], *, number: bool
) -> Path:
    """Write a PNG that was not there before; where it went.

    Args:
        picture: what to write.
        path: where; its folder is made.
        notes: text to keep inside the file, by keyword; what is no text as JSON.
        number: if `path` is taken, add the first free number to its name.

    Raises:
        RequestError: `path` is taken and may not be numbered.
    """
    info = PngInfo()
    for key, value in notes.items():
        info.add_text(key, value if isinstance(value, str) else json.dumps(value))
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in _places(path) if number else [path]:
        try:
            file = place.open("xb")
        except FileExistsError:
            continue
        try:
            with file:
                picture.save(file, format="PNG", pnginfo=info)
        except BaseException:
            place.unlink(missing_ok=True)  # no half pictures
            raise
        return place
    raise RequestError(f"{path} is there already; delete it or choose another name")


def notes_of(path: Path) -> dict[str, Any]:
    """What `save_new` kept inside a picture, or inside a sheet of `pictures`.

    Raises:
        RequestError: there is no such PNG, it is not one of ours, or its notes are
            damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as picture:
                picture.load()  # text may stand behind the pixels
                texts: dict[str, Any] = dict(getattr(picture, "text", {}))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:
        raise RequestError(f"{path} is no PNG that can be read: {error}") from error
    if not texts.get("Software", "").startswith("cm3leon "):
        raise RequestError(
            f"{path} was not drawn by cm3leon, or its notes were removed"
        )
    names = ("pictures",) if "pictures" in texts else ("options", "attribution")
    for name in names:
        try:
            texts[name] = json.loads(texts.get(name, "null"))
        except (ValueError, RecursionError) as error:
            raise _damaged(path, f"{name} is no JSON ({error})") from error
    several = texts.get("pictures", [texts])
    if not isinstance(several, list):
        raise _damaged(path, "pictures is no list")
    for notes in several:
        _check(path, notes, PICTURE)
        found = notes.get("attribution") or []
        if not isinstance(found, list):
            raise _damaged(path, "attribution is no list")
        for neighbour in found:
            _check(path, neighbour, NEIGHBOUR)
    return texts


def _check(path: Path, notes: Any, fields: Mapping[str, Any]) -> None:
    if not isinstance(notes, dict):
        raise _damaged(path, f"{notes!r:.40} is no table")
    for name, kind in fields.items():
        if not isinstance(notes.get(name), kind):
            raise _damaged(path, f"{name} is missing or {notes.get(name)!r:.40}")


def _damaged(path: Path, what: str) -> RequestError:
    return RequestError(f"the notes in {path} are damaged: {what}; draw it again")


def _places(path: Path) -> Iterator[Path]:
    yield path
    for number in range(2, 1_000_000):
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
