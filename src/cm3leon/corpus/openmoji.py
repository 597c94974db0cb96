"""OpenMoji (share-alike): colour emoji, and the line art they are made of."""

import csv
import io
from collections.abc import Iterator

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.drawing import draw_svg
from cm3leon.corpus.drawings import Drawing, Source
from cm3leon.corpus.emoji import draw_set, facts_of
from cm3leon.corpus.emoji_names import EmojiName, emoji_names, plain_code
from cm3leon.corpus.naming import words

PACKAGE = "openmoji"
_UNWANTED_SUBGROUPS = ("brand", "subdivision-flag", "geometric")
_UNWANTED_GROUPS = ("extras-unicode", "flags", "extras-openmoji flags")


def draw_colour(source: Source, archives: Archives) -> Iterator[Drawing]:
    """The colour icons, OpenMoji's own additions among them."""
    return draw_set(source, archives, _extra_names(archives))


def draw_line_art(source: Source, archives: Archives) -> Iterator[Drawing]:
    """Black lines, stroke for stroke those of the colour icons; no skin tones."""
    names, extra = emoji_names(archives), _extra_names(archives)
    for file, content in archives.members(source.package, ".svg"):
        if "/black/svg/" not in f"/{file}":
            continue
        code = file.rpartition("/")[2].removesuffix(".svg")
        plain = plain_code(code)
        name = names.by_code.get(plain) or extra.get(plain)
        if name is not None and _is_wanted(name):
            facts = facts_of(source, code, name, name.group)
            yield Drawing(draw_svg(content.decode()), facts)


def _is_wanted(name: EmojiName) -> bool:
    return not (
        name.toned
        or "hfg" in name.label.lower()
        or name.subgroup in _UNWANTED_SUBGROUPS
        or name.group in _UNWANTED_GROUPS
        or name.label.startswith("flag of")
        or "flag" in name.subgroup
    )


def _extra_names(archives: Archives) -> dict[str, EmojiName]:
    """Names of the pictures that OpenMoji adds to Unicode's."""
    content = archives.member(PACKAGE, "data/extras-openmoji.csv")
    assert content is not None
    names = {}
    for row in csv.DictReader(io.StringIO(content.decode(), newline="")):
        tags = (tag.strip() for tag in row["openmoji_tags"].split(","))
        names[plain_code(row["hexcode"])] = EmojiName(
            label=words(row["annotation"]),
            keywords=tuple(tag for tag in tags if tag),
            group=row["group"],
            subgroup=row["subgroups"],
        )
    return names
