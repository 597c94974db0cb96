"""What a clip art shows: the best of its title, file name, keywords and folder.

Titles were typed by hundreds of people: some are a sentence, some a version number,
some Italian. A label is made of words that are known, wherever they come from first.
"""

import html
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from cm3leon.corpus.naming import word_set, words

_MOST_WORDS_OF_TITLE = 8
_MOST_WORDS_OF_FILE = 5
_SMALL_WORDS = word_set(
    """with and the for of in on man woman old little big drawn straight lines outline
    cartoon young white black"""
)
_GENERIC = word_set(
    """symbol symbols hash unsorted icon icons sign logo people food office weather
    party holiday art recreation computer shape shapes tools tool animals animal
    flag flags music signs transport transportation entertainment appicon person
    insect roadsign webpage old new black white simple beverage historic mapsym clip
    drawing image picture misc set button buildings building plant plants other
    various collection mammal mammals fruit fruits dessert hardware vegetable bird
    fish reptile miscellany direction europe asia africa america openclipart issue
    menu contour technology pictogram public italy cartoon outline silhouette entry
    item object objects stuff test example untitled unknown title"""
) | {
    "road signs",
    "road sign",
    "signs and symbols",
    "web page",
    "various cliparts",
    "no title",
    "new title",
}
_LIBRARY_WORDS = ("aiga", "architetto", "img", "svg", "clipart")
_TOO_VAGUE = ("signs and symbols", "unsorted", "icon", "symbol", "shape", "logo")
_NO_KEYWORDS = ("unsorted", "appicon", "mapsym")
_TITLE_NOISE = re.compile(
    r"\b(v|ver|version|pack|collection|clip ?art|svg|png|openclipart|drawing|"
    r"symbol signs?|aiga)\b",
    re.IGNORECASE,
)

Known = Callable[[Iterable[str]], list[str]]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an SVG file says about itself; `creators` are words of people's names."""

    title: str
    keywords: list[str]
    creators: Set[str]


def known_words(vocabulary: Set[str]) -> Known:
    """A function that keeps the words of a list that are known, in the plural too."""
    known = vocabulary | _SMALL_WORDS

    def keep(candidates: Iterable[str]) -> list[str]:
        return [
            word for word in candidates if word in known or word.rstrip("s") in known
        ]

    return keep


def read_record(path: Path) -> Record:
    """Title, keywords and creators of an SVG file's metadata."""
    svg = path.read_text(encoding="utf-8", errors="replace")
    titles = [title for title in _texts(svg, "dc:title") if title and "<" not in title]
    creator = re.search(r"<dc:creator.*?</dc:creator>", svg, re.DOTALL)
    names = _elements(creator[0], "dc:title") if creator else []
    creators = frozenset(re.findall("[a-z]+", " ".join(names).lower()))
    keywords = (
        text.lower()
        for text in _texts(svg, "rdf:li")
        if text and "<" not in text and len(text) < 30
    )
    return Record(
        title=_clean_title(titles[0]) if titles else "",
        keywords=[
            words(keyword)
            for keyword in dict.fromkeys(keywords)
            if not creators.intersection(re.findall("[a-z]+", keyword))
            and "hash" not in keyword
            and words(keyword) not in _NO_KEYWORDS
        ],
        creators=creators,
    )


def choose_label(record: Record, stem: str, path: list[str], known: Known) -> str:
    """What the picture shows; empty if nothing says it.

    Args:
        record: what the file says about itself.
        stem: its name, often with the author's in it.
        path: its folders, as words.
        known: keeps the words that are English.
    """
    label = (
        _from_title(record.title, known)
        or _from_file_name(stem, record.creators, known)
        or _from_keywords(record.keywords, known)
        or _from_folder(path)
        or next(iter([*record.keywords, record.title]))
    )
    return "" if len(label) < 3 or label in _TOO_VAGUE else label


def _from_title(title: str, known: Known) -> str:
    """A title of a few words, three in five of them known."""
    parts = re.findall("[a-z]+", title)
    good = (
        0 < len(parts) <= _MOST_WORDS_OF_TITLE
        and len(known(parts)) >= 0.6 * len(parts)
        and len(title) > 2
        and title not in _GENERIC
        and "hash" not in title
    )
    return title if good else ""


def _from_file_name(stem: str, creators: Set[str], known: Known) -> str:
    parts = (part for part in re.findall("[a-z]+", stem.lower()) if len(part) > 2)
    others = (
        part
        for part in parts
        if part not in _LIBRARY_WORDS
        and not any(creator.startswith(part) for creator in creators)
    )
    label = " ".join(known(others)[:_MOST_WORDS_OF_FILE])
    return "" if label in _GENERIC else label


def _from_keywords(keywords: list[str], known: Known) -> str:
    for keyword in keywords:
        parts = keyword.split()
        if keyword not in _GENERIC and len(known(parts)) == len(parts):
            return keyword
    return ""


def _from_folder(path: list[str]) -> str:
    if not path or path[-1] in _GENERIC:
        return ""
    return re.sub(r"(?<=[a-z])s$", "", path[-1])


def _clean_title(title: str) -> str:
    title = re.sub(r"\(.*?\)|\.svg|[\"']", " ", title)
    title = _TITLE_NOISE.sub(" ", words(title))
    title = re.sub(r"\d+\b", " ", title)
    title = re.sub(r"[^A-Za-z\- ,']", " ", title)
    return re.sub(r"\s+", " ", title).strip(" .,-").lower()


def _elements(svg: str, tag: str) -> list[str]:
    found: list[str] = re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", svg, re.DOTALL)
    return found


def _texts(svg: str, tag: str) -> list[str]:
    """The texts of elements; some were escaped twice."""
    texts = (html.unescape(html.unescape(text)) for text in _elements(svg, tag))
    return [re.sub(r"\s+", " ", text).strip() for text in texts]
