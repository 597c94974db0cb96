"""Endless Sky: photos of landscapes and pictures of planets, with a licence each."""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.copyrights import Copyrights
from cm3leon.corpus.drawing import cover
from cm3leon.corpus.drawings import Drawing, Facts, Source

_ROOT = "usr/share/games/endless-sky"
_WIDE = 1.6  # from this proportion on a photo gives two squares, left and right
_SCENES = {
    "badlands": "badlands with rocky hills",
    "beach": "a beach by the sea",
    "canyon": "a canyon",
    "city": "a city skyline",
    "desert": "a desert",
    "dune": "sand dunes",
    "fields": "grassy fields",
    "fog": "a foggy landscape",
    "forest": "a forest",
    "hills": "green hills",
    "industrial": "an industrial plant",
    "lava": "a volcanic lava landscape",
    "mountain": "mountains",
    "sea": "the sea and the coast",
    "sky": "a sky with clouds",
    "snow": "a snowy landscape",
    "space": "outer space",
    "station": "a space station",
    "valley": "a valley",
    "water": "a lake",
    "earthrise": "the Earth rising over the Moon",
}
_PLANETS = re.compile(
    "^(cloud|desert|dust|forest|gas|ice|lava|mountain|ocean|rock|water|wormhole|"
    "browndwarf)"
)
_OTHER_BODIES = {
    "browndwarf": "brown dwarf star",
    "gas": "gas giant planet",
    "wormhole": "wormhole",
}


def draw_landscapes(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Squares of landscape photos; those of one photo share its concept."""
    with archives.unpacked(source.package) as folder:
        copyrights = _copyrights(folder, source)
        for path in sorted((folder / _ROOT).glob("images/land/*.jpg"), key=str):
            scene = re.match("[a-z]*", path.stem)
            kind = scene[0] if scene else ""
            if kind not in _SCENES:
                continue
            credit = copyrights.credit(str(path.relative_to(folder / _ROOT)))
            photo = Image.open(path)
            wide = photo.width > _WIDE * photo.height
            for part, at in (("l", 0.0), ("r", 1.0)) if wide else (("c", 0.5),):
                facts = Facts(
                    key=f"{path.stem}-{part}",
                    label=_SCENES[kind],
                    style=source.style,
                    licence=credit.licence,
                    author=credit.author,
                    keywords=(kind, "landscape", "nature"),
                    group="landscape",
                    subgroup=kind,
                    concept=path.stem,
                )
                yield Drawing(cover(photo, at=at), facts)


def draw_planets(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Planets and the like on black."""
    with archives.unpacked(source.package) as folder:
        copyrights = _copyrights(folder, source)
        for path in sorted((folder / _ROOT).glob("images/planet/*.png"), key=str):
            body = _PLANETS.match(path.stem)
            if body is None:
                continue
            kind = body[1]
            credit = copyrights.credit(str(path.relative_to(folder / _ROOT)))
            facts = Facts(
                key=path.stem,
                label=_OTHER_BODIES.get(kind, f"{kind} planet") + " in space",
                style=source.style,
                licence=credit.licence,
                author=credit.author,
                keywords=("planet", "space", kind),
                group="space",
                subgroup="planet",
            )
            yield Drawing(cover(_on_black(path)), facts)


def _copyrights(folder: Path, source: Source) -> Copyrights:
    return Copyrights(folder / "usr/share/doc" / source.package / "copyright")


def _on_black(path: Path) -> Image.Image:
    image = Image.open(path).convert("RGBA")
    ground = Image.new("RGBA", image.size, "black")
    ground.alpha_composite(image)
    return ground
