"""Names and keywords of emoji, found by code point or by an icon's name."""

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.iconify import read_icons
from cm3leon.corpus.naming import slug, words

LABELS = "emojibase-data"
KEYWORDS = "emojilib"
# Sets whose own icon names are learnt as further names of the code points.
_LEARNT = (
    "@iconify-json/twemoji",
    "@iconify-json/noto",
    "@iconify-json/fluent-emoji-flat",
)
PACKAGES = (LABELS, KEYWORDS, *_LEARNT)

_LONGEST_WORD = 16
_TONE = r"(?:medium-light|medium-dark|light|medium|dark) skin tone"
_TONED_LABEL = re.compile(rf"^(.*?), ({_TONE})(?:, ({_TONE}))?$")
_TONED_ICON = re.compile(r"^(.*?)-(light|medium-light|medium|medium-dark|dark)$")
_NUMBERED_ICON = re.compile(r"^(.*?)-(\d+)$")


@dataclass(frozen=True, kw_only=True)
class EmojiName:
    """What an emoji is called; `code` is that of its form without skin tone."""

    label: str
    keywords: tuple[str, ...] = ()
    group: str = ""
    subgroup: str = ""
    code: str = ""
    toned: bool = False


def plain_code(code: str) -> str:
    """Code points without the emoji presentation selector, in one spelling.

    >>> plain_code("0023-FE0F-20E3")
    '23-20e3'
    """
    code = re.sub("-?fe0f", "", code.lower().replace("_", "-"))
    return code.strip("-").lstrip("0")


def readable_label(label: str) -> str:
    """A label of the Unicode tables as one would say it.

    >>> readable_label("waving hand: light skin tone"), readable_label("flag: Peru")
    ('waving hand with light skin tone', 'flag of Peru')
    """
    for prefix, words_for_it in (("flag: ", "flag of "), ("keycap: ", "keycap ")):
        if label.startswith(prefix):
            return words_for_it + label.removeprefix(prefix)
    label = label.replace(": ", ", ", 1)
    toned = _TONED_LABEL.match(label)
    if toned is None:
        return label
    name, tone, second = toned.groups()
    return f"{name} with {tone}" + (f" and {second}" if second else "")


class EmojiNames:
    """Every emoji by code point and by slug."""

    def __init__(self) -> None:
        self.by_code: dict[str, EmojiName] = {}
        self._by_slug: dict[str, EmojiName] = {}
        self._counts: Counter[str] = Counter()

    def add(self, code: str, name: EmojiName) -> None:
        """Enter an emoji under its code, its label and its Unicode name."""
        self.by_code[plain_code(code)] = name
        self._by_slug.setdefault(_joined(name.label), name)
        if "-" not in code:
            unicode_name = unicodedata.name(chr(int(code, 16)), "")
            if unicode_name:
                self._by_slug.setdefault(_joined(unicode_name), name)
        text = " ".join([name.label, *name.keywords]).lower()
        self._counts.update(re.findall("[a-z]+", text))

    def learn(self, characters: Mapping[str, str]) -> None:
        """Enter an icon set's names of code points."""
        for code, icon in characters.items():
            name = self.by_code.get(plain_code(code))
            if name is not None:
                self._by_slug.setdefault(_joined(icon), name)

    @property
    def vocabulary(self) -> frozenset[str]:
        """Every word of labels and keywords."""
        return frozenset(self._counts)

    def find(self, icon: str) -> EmojiName | None:
        """The emoji an icon's name means, if it can be told."""
        spoken = icon
        for prefix in ("flag-for-flag-", "flag-for-"):
            if spoken.startswith(prefix):
                spoken = "flag of " + words(spoken.removeprefix(prefix))
        name = self._by_slug.get(_joined(spoken))
        if name is not None:
            return name
        toned = _TONED_ICON.match(icon)
        name = self._by_slug.get(_joined(toned[1])) if toned else None
        if toned and name is not None:
            label = f"{name.label} with {toned[2]} skin tone"
            return replace(name, label=label, toned=True)
        numbered = _NUMBERED_ICON.match(icon)
        return self._by_slug.get(_joined(numbered[1])) if numbered else None

    def split(self, text: str) -> str:
        """Words that were written together, by the likeliest known words.

        A word seen c times among n has the log-probability log(c / n); letters of no
        word cost 3 each and log(1e-7 / n) a piece.
        """
        text, total = text.lower(), self._counts.total()
        best: list[tuple[float, list[str]]] = [(0.0, [])]
        for end in range(1, len(text) + 1):
            choices = []
            for start in range(max(0, end - _LONGEST_WORD), end):
                word = text[start:end]
                count = self._counts[word] if len(word) > 1 or word == "a" else 0
                score = math.log((count or 1e-7) / total)
                score -= 0 if count else 3 * len(word)
                choices.append((best[start][0] + score, [*best[start][1], word]))
            best.append(max(choices, key=lambda choice: choice[0]))
        return " ".join(best[-1][1])


@functools.lru_cache(maxsize=1)
def emoji_names(archives: Archives) -> EmojiNames:
    """The names of `PACKAGES`."""
    names = EmojiNames()
    for code, name in _read(archives):
        names.add(code, name)
    for package in _LEARNT:
        names.learn(read_icons(archives, package).characters)
    return names


def _read(archives: Archives) -> Iterator[tuple[str, EmojiName]]:
    groups = archives.json(LABELS, "meta/groups.json")
    library = archives.json(KEYWORDS, "dist/emoji-en-US.json")
    keywords = {_no_selector(emoji): tags for emoji, tags in library.items()}
    for entry in archives.json(LABELS, "en/data.json"):
        tags = entry.get("tags", []) + keywords.get(_no_selector(entry["emoji"]), [])
        name = EmojiName(
            label=readable_label(entry["label"]),
            keywords=tuple(dict.fromkeys(tag.replace("_", " ") for tag in tags)),
            group=_title(groups, "groups", entry),
            subgroup=_title(groups, "subgroups", entry),
            code=plain_code(entry["hexcode"]),
        )
        yield entry["hexcode"], name
        for skin in entry.get("skins", []):
            label = readable_label(skin["label"])
            toned = replace(name, label=label, toned=bool(skin.get("tone")))
            yield skin["hexcode"], toned


def _title(groups: Mapping[str, Any], kind: str, entry: Mapping[str, Any]) -> str:
    return str(groups[kind].get(str(entry.get(kind.removesuffix("s"))), ""))


def _no_selector(emoji: str) -> str:
    return emoji.replace("\ufe0f", "")


def _joined(name: str) -> str:
    return slug(name).replace("-", "")
