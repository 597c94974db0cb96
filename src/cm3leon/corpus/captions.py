"""The captions of a picture: its label, its style, its colours in several forms."""

from collections.abc import Sequence
from typing import Literal

from cm3leon.corpus.drawings import Facts
from cm3leon.corpus.naming import with_article

Tier = Literal["core", "skin", "mono", "icon", "avatar"]

_KEYWORDS_IN_CAPTION = 5
_PHOTOS = ("endless-sky-land", "gcompris", "tuxpaint-stamps")
_TAG_LIKE = ("flat-color-icons", "meteocons")


def main_caption(facts: Facts) -> str:
    """A style and what is drawn in it.

    >>> main_caption(Facts(
    ...     key="", label="owl", style="flat emoji", licence="MIT", author=""))
    'a flat emoji of an owl'
    """
    return f"{with_article(facts.style)} of {_spoken(facts)}"


def captions_of(
    facts: Facts, colors: Sequence[str], others: Sequence[str] = ()
) -> tuple[str, ...]:
    """Every caption, each once.

    Args:
        facts: what the source says.
        colors: main colours, most first.
        others: labels of near-duplicates of the same concept.
    """
    main = main_caption(facts)
    captions = [facts.sentence.rstrip(".")] if facts.sentence else []
    captions += [facts.label, f"{_spoken(facts)}, {facts.style}", main]
    if colors:
        captions.append(f"{main}, {' and '.join(colors[:2])}")
    if facts.keywords:
        further = facts.keywords[:_KEYWORDS_IN_CAPTION]
        listed = ", ".join(word for word in further if word != facts.label)
        captions.append(f"{facts.label}, {listed}")
    return tuple(dict.fromkeys([*captions, *others]))


def tier_of(source: str, facts: Facts, *, grey: bool) -> Tier:
    """How a picture is to be used: `core` first, the others in smaller shares."""
    if facts.toned:
        return "skin"
    if source.startswith("dicebear-"):
        return "avatar"
    if grey and source not in _PHOTOS:
        return "mono"
    return "icon" if facts.tags or source in _TAG_LIKE else "core"


def _spoken(facts: Facts) -> str:
    return facts.label if facts.tags else with_article(facts.label)
