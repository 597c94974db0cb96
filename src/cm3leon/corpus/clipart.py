"""Open Clip Art Library: public-domain clip art of many hands, as Debian packs it."""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.clipart_labels import Record, choose_label, known_words, read_record
from cm3leon.corpus.drawing import contain, draw_svg_file, is_grey
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.emoji_names import emoji_names
from cm3leon.corpus.iconify import read_icons
from cm3leon.corpus.icons import ICON_PACKAGES
from cm3leon.corpus.naming import word_set, words

logger = logging.getLogger(__name__)

DRAWINGS = "openclipart-svg"  # the vector files, which also hold titles and keywords
_FOLDER = "usr/share/openclipart"
_MOST_PIXELS = 4_000_000
_MOST_KEYWORDS = 14
_UNWANTED_FOLDERS = word_set(
    """stars gradients patterns led buttons map_symbols jigsaw flowchart callouts cards
    semaphore logos special pantyhose hummers icons"""
)
_VAGUE_FOLDERS = ("unsorted", "signs_and_symbols", "miscellany")


def draw_clipart(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Every picture that has a vector file and words that say what it shows."""
    with (
        archives.unpacked(source.package) as bitmaps,
        archives.unpacked(DRAWINGS) as drawings,
    ):
        root = bitmaps / _FOLDER / "png"
        files = sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))
        known = known_words(_vocabulary(archives, files))
        for file in files:
            bitmap = root / file
            drawing = drawings / _FOLDER / "svg" / f"{file[:-4]}.svg"
            folders = file.split("/")[:-1]
            if _UNWANTED_FOLDERS.intersection(folders):
                continue
            if not bitmap.is_file() or not drawing.is_file():
                continue
            path = [words(name) for name in folders if name not in _VAGUE_FOLDERS]
            record = read_record(drawing)
            label = choose_label(record, bitmap.stem, path, known)
            image = _picture(bitmap, drawing) if label else None
            if image is not None:
                facts = _facts(source, file, label, record, path)
                if is_grey(image):
                    facts = replace(facts, style="black and white clip art")
                yield Drawing(image, facts)


def _vocabulary(archives: Archives, files: list[str]) -> set[str]:
    """Words taken for English: of emoji names, icon names and folders."""
    found = {word for word in emoji_names(archives).vocabulary if len(word) > 2}
    for package in ICON_PACKAGES:
        for icon in read_icons(archives, package).icons:
            parts = icon.split("-")
            found.update(word for word in parts if len(word) > 3 and word.isalpha())
    for file in files:
        for folder in file.split("/")[:-1]:
            found.update(folder.split("_"))
    return found


def _picture(bitmap: Path, drawing: Path) -> Image.Image | None:
    """The bitmap; where it is huge the vector file; nothing where neither will do."""
    try:
        with warnings.catch_warnings():  # the largest warn, but are not decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(bitmap)
        if image.width * image.height > _MOST_PIXELS:
            image = draw_svg_file(drawing, width=512)
        return contain(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        logger.info("left out %s: %s", bitmap.name, error)
        return None


def _facts(
    source: Source, file: str, label: str, record: Record, path: list[str]
) -> Facts:
    is_flag = file.startswith("flags/") or "/flags/" in file
    if (is_flag or "flags" in record.keywords) and "flag" not in label:
        label = "flag of " + label
    return Facts(
        key=file,
        label=label,
        style=source.style,
        licence=source.licence,
        author=source.author,
        keywords=tuple([*record.keywords, *path][:_MOST_KEYWORDS]),
        group=path[0] if path else "",
        subgroup=path[-1] if path else "",
    )
