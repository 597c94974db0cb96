"""Collections that ask for more than attribution: Tux Paint, Scratch, Art4Apps."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.drawing import contain, cover, draw_svg_file
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.naming import concept_of, words

logger = logging.getLogger(__name__)

_PHOTO_COLOURS = 900  # a drawing has fewer, counted in steps of 8 levels
_LETTERS_AND_COINS = re.compile("alphabets|math|money")
_PROPER_NAME = re.compile(r"^[A-Z][a-z]+ [A-Z]|^[A-Z]+[- ]\d")
_SCRATCH_PEOPLE = re.compile(
    r"^(dan|cassy|breakdancer|amanda|anjuli|jaime|jodi|calvrett|marissa|sam)"
    r"(?=\b|[A-Z])"
)


def draw_stamps(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Tux Paint's stamps, each with a sentence that somebody wrote."""
    with archives.unpacked(source.package) as folder:
        root = folder / "usr/share/tuxpaint/stamps"
        for path in sorted(root.rglob("*.txt"), key=str):
            file = str(path.relative_to(root))
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            sentence = lines[0].strip()
            if not sentence or _LETTERS_AND_COINS.search(file):
                continue
            image = _stamp(path)
            if image is None:
                continue
            folders = file.split("/")[:-1]
            png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
            drawn = "cartoon" in folders or not png.exists() or svg.exists()
            facts = Facts(
                key=file.removesuffix(".txt"),
                label=_stamp_label(sentence),
                style="cartoon drawing" if drawn else source.style,
                licence=source.licence,
                author=source.author,
                keywords=tuple(word for word in folders if word != "cartoon"),
                group=folders[0],
                subgroup=folders[-1],
                sentence=sentence,
            )
            yield Drawing(image, facts)


def draw_costumes(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Scratch's costumes and backgrounds, without its letters."""
    with archives.unpacked(source.package) as folder:
        root = folder / "usr/share/scratch/Media"
        for path in sorted(root.rglob("*"), key=str):
            file = str(path.relative_to(root))
            if path.suffix.lower() not in (".png", ".jpg", ".gif"):
                continue
            folders = file.split("/")[:-1]
            label = _costume_label(path.stem, folders)
            if "Letters" in folders or not label:
                continue
            is_background = folders[0] == "Backgrounds"
            picture = Image.open(path)
            image = cover(picture) if is_background else contain(picture)
            if image is None:
                continue
            is_photo = path.suffix.lower() == ".jpg" or (
                not is_background and _colours(image) > _PHOTO_COLOURS
            )
            facts = Facts(
                key=file,
                label=label,
                style=_costume_style(is_background, is_photo),
                licence=source.licence,
                author=source.author,
                keywords=tuple(word.lower() for word in folders if word != "Costumes"),
                group=folders[-1].lower(),
            )
            yield Drawing(image, facts)


def draw_art4apps(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Art4Apps' cartoons of nouns and verbs."""
    with archives.unpacked(source.package) as folder:
        root = folder / "usr/share/games/pysiogame/res/images/art4apps"
        for path in sorted(root.glob("*/*.jpg"), key=str):
            category, name = path.parent.name, words(path.stem)
            image = contain(Image.open(path))
            if image is None:
                continue
            facts = Facts(
                key=f"{category}/{path.stem}",
                label=f"the action {name}" if category == "actions" else name,
                style=source.style,
                licence=source.licence,
                author=source.author,
                keywords=(words(category),),
                group=words(category),
                concept=concept_of(name),
            )
            yield Drawing(image, facts)


def _stamp(path: Path) -> Image.Image | None:
    """The picture beside a caption file: the bitmap, else the vector file."""
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    try:
        if png.exists():
            return contain(Image.open(png))
        return contain(draw_svg_file(svg, width=256)) if svg.exists() else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        logger.info("left out %s: %s", path.name, error)
        return None


def _stamp_label(sentence: str) -> str:
    """The first sentence without its article, and small unless it is a name."""
    first = re.sub("^(An?|The) ", "", sentence.split(". ")[0].rstrip(".!")).strip()
    if _PROPER_NAME.match(first):
        return first
    return first[:1].lower() + first[1:]


def _costume_label(stem: str, folders: list[str]) -> str:
    label = re.sub(r"[-_ ]?\d+[-_]?[a-z]?$", "", stem)
    label = words(re.sub(r"\d+[a-z]?", " ", label)).lower()
    if len(label) < 3 or label in ("fantasy", "wild things"):
        return ""
    if folders[-1:] != ["People"]:
        return label
    return _SCRATCH_PEOPLE.sub(
        lambda name: "break dancer" if name[1] == "breakdancer" else "person", label
    )


def _costume_style(is_background: bool, is_photo: bool) -> str:
    if is_background:
        return "background photo" if is_photo else "background drawing"
    return "cut-out photo on white" if is_photo else "cartoon drawing"


def _colours(image: Image.Image) -> int:
    steps = np.asarray(image).reshape(-1, 3) // 8
    return len(np.unique(steps, axis=0))
