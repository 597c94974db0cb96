"""Icons: sets whose names are words or lists of tags."""

import re
from collections.abc import Iterator

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.drawing import draw_svg
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.iconify import IconSet, read_icons
from cm3leon.corpus.naming import word_set, words

ICON_PACKAGES = tuple(
    f"@iconify-json/{name}"
    for name in (
        "streamline-ultimate-color",
        "streamline-freehand-color",
        "flat-color-icons",
        "fluent-color",
        "icon-park",
        "game-icons",
        "meteocons",
    )
)
# Sets whose names read as words; the others' are lists of tags.
_NAMED_IN_WORDS = ("game-icons", "flat-color-icons")
_NUMBER = re.compile(r"^(.*)-(\d+)$")
_LAST_NUMBER = re.compile(r"\s(one|two|three|four|\d+)$")
_BRANDS_AND_COMPUTING = re.compile(
    r"\b("
    "logo|google|facebook|twitter|github|apple|alipay|wechat|tiktok|stumbleupon|"
    "dribbble|linux|windows|android|ios|chrome|html|css|java|python|vue|react|npm|api|"
    "sql|xml|php|dns|vpn|ssl|ip|ftp|url|cpu|gps|usb|ui|ux|seo|crm|b2b|abtest"
    r")\b"
)
_UNWANTED_CATEGORIES = word_set(
    """Brand Components Arrows ArrowsDiagrams Edit InterfaceEssential Programing
    ProgramingAppsWebsites Abstract Base"""
)


def draw_icons(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Every icon whose name says what is to be seen."""
    icons = read_icons(archives, source.package)
    for icon in _chosen(source.name, icons):
        label = _label(
            icon.removesuffix("-fill") if source.name == "meteocons" else icon
        )
        category = icons.categories.get(icon, "")
        if not _is_wanted(label, category):
            continue
        facts = Facts(
            key=icon,
            label=label,
            style=source.style,
            licence=source.licence,
            author=source.author,
            group=words(category).lower(),
            tags=source.name not in _NAMED_IN_WORDS,
        )
        yield Drawing(draw_svg(icons.svg(icon)), facts)


def _chosen(source: str, icons: IconSet) -> list[str]:
    """One drawing of each thing."""
    if source == "meteocons":
        return [icon for icon in icons.icons if icon.endswith("-fill")]
    if source == "fluent-color":
        return _largest(icons)
    return list(icons.icons)


def _largest(icons: IconSet) -> list[str]:
    """Of a name that comes in several sizes, the largest drawing."""
    largest: dict[str, tuple[int, str]] = {}
    for icon in icons.icons:
        sized = _NUMBER.match(icon)
        if sized and int(sized[2]) > largest.get(sized[1], (0, ""))[0]:
            largest[sized[1]] = (int(sized[2]), icon)
    return [icon for _, icon in largest.values()]


def _label(icon: str) -> str:
    """An icon's name without its number.

    >>> _label("sleeping-bear-2"), _label("chair-two")
    ('sleeping bear', 'chair')
    """
    return _LAST_NUMBER.sub("", re.sub(r"-\d+$", "", icon).replace("-", " "))


def _is_wanted(label: str, category: str) -> bool:
    return not (
        _BRANDS_AND_COMPUTING.search(label)
        or category in _UNWANTED_CATEGORIES
        or len(label) < 3
        or re.search(r"\d", label)
    )
