"""Emoji: eleven vector sets and one set of rendered pictures."""

import io
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from PIL import Image

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.drawing import contain, draw_svg
from cm3leon.corpus.drawings import Drawing, Facts, Source
from cm3leon.corpus.emoji_names import EmojiName, emoji_names, plain_code
from cm3leon.corpus.iconify import IconSet, read_icons
from cm3leon.corpus.naming import words

MOST_KEYWORDS = 14
# Sets that list no code points of their own, and the set they are drawn after.
_SAME_CHARACTERS = {"@iconify-json/fluent-emoji": "@iconify-json/fluent-emoji-flat"}
_UNNAMED_PARTS = re.compile(r"tone|skin|^letter-|digit|^\d+$|hair$|^flag-for")
_UNWANTED_SUBGROUPS = ("brand", "country-subdivision", "subdivision-flag")


def draw_set(
    source: Source, archives: Archives, extra: Mapping[str, EmojiName] | None = None
) -> Iterator[Drawing]:
    """Every icon of a set that has a name.

    Args:
        extra: names of code points that are no emoji of Unicode's.
    """
    icons = read_icons(archives, source.package)
    twin = _SAME_CHARACTERS.get(source.package)
    characters = read_icons(archives, twin).characters if twin else icons.characters
    codes = defaultdict(list)
    for code, icon in characters.items():
        codes[icon].append(plain_code(code))
    for icon in icons.icons:
        name = _name(source, archives, icons, icon, codes[icon], extra or {})
        if name is None or not is_wanted(name):
            continue
        group = name.group or icons.categories.get(icon, "")
        yield Drawing(draw_svg(icons.svg(icon)), facts_of(source, icon, name, group))


def draw_rendered(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Every picture whose file name is the code point of an emoji."""
    names = emoji_names(archives)
    for file, content in archives.members(source.package, ".webp"):
        code = file.rpartition("/")[2].removesuffix(".webp")
        name = names.by_code.get(plain_code(code))
        if name is not None:
            picture = Image.open(io.BytesIO(content))
            image = contain(picture, trim=False, margin=0.0)
            assert image is not None
            yield Drawing(image, facts_of(source, code, name, name.group))


def facts_of(source: Source, key: str, name: EmojiName, group: str) -> Facts:
    """What a source says about one of its emoji."""
    return Facts(
        key=key,
        label=name.label,
        style=source.style,
        licence=source.licence,
        author=source.author,
        keywords=name.keywords[:MOST_KEYWORDS],
        group=group,
        subgroup=name.subgroup,
        unicode=name.code,
        toned=name.toned,
    )


def is_wanted(name: EmojiName) -> bool:
    """Whether an emoji is neither a brand nor a part of a country nor a logo."""
    return not (
        "hfg" in name.label.lower()
        or name.subgroup in _UNWANTED_SUBGROUPS
        or name.group.startswith("extras-unicode")
    )


def _name(
    source: Source,
    archives: Archives,
    icons: IconSet,
    icon: str,
    codes: list[str],
    extra: Mapping[str, EmojiName],
) -> EmojiName | None:
    """By code point, else by the icon's name, else the icon's name itself."""
    names = emoji_names(archives)
    known = next((names.by_code[code] for code in codes if code in names.by_code), None)
    known = known or names.find(icon)
    known = known or next((extra[code] for code in codes if code in extra), None)
    if known is not None:
        return known
    if _UNNAMED_PARTS.search(icon):
        return None
    run_together = source.name == "fxemoji"
    label = names.split(icon) if run_together else re.sub(r"\s\d+$", "", words(icon))
    return EmojiName(label=label, group=icons.categories.get(icon, ""))
