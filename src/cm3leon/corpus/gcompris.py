"""GCompris: photos and drawings of an educational program, a licence each."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.copyrights import Copyrights, Credit
from cm3leon.corpus.drawing import contain, cover, draw_svg_text
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.naming import words
from cm3leon.corpus.qt_resources import read_bundle
from cm3leon.images.pixels import on_white

# Bundle -> what its pictures are of; empty: the folder's name says it.
_BUNDLES = {
    "lang": "words",
    "categorization": "",
    "explore_monuments": "monuments",
    "explore_world_animals": "animals",
    "explore_farm_animals": "farm animals",
    "solar_system": "planets",
    "instruments": "musical instruments",
}
_PARTS_OF_SCREENS = re.compile(r"question|background|bg|frame|suitcase|button|\d+x")
_VAGUE_FOLDERS = ("resource", "words sample")
# The copyright file names pictures as they were before they were packed.
_SUFFIXES = (".jpg", ".png", ".svg", ".webp")
_PROGRAM = Credit("GPL-3.0+", "GCompris authors")


def draw_gcompris(source: Source, archives: Archives) -> Iterator[Drawing]:
    """The pictures that show a named thing."""
    with archives.unpacked(source.package) as root:
        copyrights = Copyrights(root / "usr/share/doc" / source.package / "copyright")
        for bundle, group in _BUNDLES.items():
            path = root / f"usr/share/gcompris-qt/rcc/{bundle}.rcc"
            for file, content in sorted(read_bundle(path).items()):
                label = _label(file, bundle)
                drawn = _draw(file, content, bundle) if label else None
                if drawn is None:
                    continue
                image, style = drawn
                credit = _credit(file, copyrights)
                folder = words(file.split("/")[-2])
                kind = group or folder
                further = [] if folder in _VAGUE_FOLDERS else [folder]
                facts = Facts(
                    key=file.split("/activities/")[1],
                    label=label,
                    style=style,
                    licence=credit.licence,
                    author=credit.author or _PROGRAM.author,
                    keywords=(kind, *further),
                    group=kind,
                )
                yield Drawing(image, facts)


def _label(file: str, bundle: str) -> str:
    """What the picture shows; empty if it is no picture of a thing."""
    stem, suffix = Path(file).stem, Path(file).suffix
    wanted = (".webp", ".svg") if bundle == "instruments" else (".webp",)
    if suffix not in wanted or "/resource/" not in file:
        return ""
    label = words(re.sub(r"\d+$", "", stem)).lower()
    if _PARTS_OF_SCREENS.search(stem) or label == "odd":
        return ""
    return words(stem) if label and bundle == "explore_monuments" else label


def _draw(file: str, content: bytes, bundle: str) -> tuple[Image.Image, str] | None:
    """The picture and its style."""
    if file.endswith(".svg"):
        try:
            drawing = contain(draw_svg_text(content.decode(), width=256))
        except ValueError:
            return None
        return None if drawing is None else (drawing, "drawing")
    picture = on_white(Image.open(io.BytesIO(content)))
    cut_out = _has_white_border(picture)
    image = contain(picture) if cut_out else cover(picture)
    if image is None:
        return None
    if bundle == "lang":
        return image, "hand-drawn cartoon"
    return image, "cut-out photo on white" if cut_out else "photo"


def _has_white_border(image: Image.Image) -> bool:
    small = np.asarray(image.resize((16, 16)))
    border = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    return bool((border.min(axis=1) > 240).mean() > 0.6)


def _credit(file: str, copyrights: Copyrights) -> Credit:
    """That of the picture's own paragraph, else that of the program."""
    named = Path(file.replace("/gcompris/", "", 1))
    endings = (*_SUFFIXES, named.suffix)
    credits = [copyrights.credit(str(named.with_suffix(end))) for end in endings]
    own = [credit for credit in credits if credit.licence not in ("?", "GPL-3+")]
    return own[-1] if own else _PROGRAM
