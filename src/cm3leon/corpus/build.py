"""The corpus from its pinned packages: fetch, draw, choose, write.

    fetch   archives by exact version, checked by SHA-256               fetch.py
    draw    each source's pictures into its own file, once              staging.py
    choose  near-duplicates, ids, splits, captions                      rows.py
    write   Parquet per split, SOURCES.json, ATTRIBUTION.md             tables.py

Every file is written whole or not at all; a build that was stopped goes on with the
source it was at. Two builds with the same settings give the same bytes.
"""

import importlib.metadata
import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.credits import counts, credit_page
from cm3leon.corpus.drawings import Source
from cm3leon.corpus.fetch import Archive, fetch_all, need_program
from cm3leon.corpus.licences import is_attribution
from cm3leon.corpus.packages import PACKAGES
from cm3leon.corpus.partial import written_whole
from cm3leon.corpus.rows import Row, assemble
from cm3leon.corpus.sources import choose_sources
from cm3leon.corpus.staging import RECIPE, Staged, read_staged, stage
from cm3leon.corpus.tables import write_tables
from cm3leon.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


@runtime_checkable
class Watch(Protocol):
    """Who is told how far a build is."""

    def begin(self, name: str, pictures: int | None) -> None:
        """Something new begins; of as many pictures, if that is known."""

    def advance(self, pictures: int) -> None:
        """So many more pictures are done."""


class Unwatched:
    """A `Watch` that looks away."""

    def begin(self, name: str, pictures: int | None) -> None:
        """Nothing."""

    def advance(self, pictures: int) -> None:
        """Nothing."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What a build has written, and what it holds."""

    folder: Path
    drawn: int
    pictures: int
    splits: Mapping[str, int]
    tiers: Mapping[str, int]


def build(
    folder: Path,
    *,
    share_alike: bool = False,
    only: str | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    watch: Watch | None = None,
) -> Built:
    """Build the corpus into `folder`.

    Args:
        folder: made if it is not there.
        share_alike: add pictures that ask for more than attribution. The others keep
            their ids, splits and captions.
        only: source names with commas between, or `npm`; `None` for all.
        limit: about the most pictures of each source; `None` for all.
        cache: where archives are kept; `folder/archives` if `None`.
        watch: told how far the build is.

    Raises:
        ConfigError: a source is unknown, or a program that is needed not installed.
        DataError: an archive is not the pinned one, or nothing was left to write.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, below 1; leave it out for all pictures")
    watch = watch or Unwatched()
    sources = choose_sources(only, share_alike=share_alike)
    at_hand = _fetch(sources, cache or folder / "archives", watch)
    staged = _draw(sources, at_hand, folder / "stage", limit, watch)
    watch.begin("choosing", None)
    drawn = [
        picture
        for source in sources
        for picture in read_staged(source, staged[source.name])
        if share_alike or picture.is_attribution
    ]
    rows = _assemble(drawn)
    watch.begin("writing", None)
    write_tables(rows, staged, folder)
    found = counts(rows)
    _write_sources(folder, found, at_hand, share_alike, limit)
    _write_text(folder / "ATTRIBUTION.md", credit_page(rows, at_hand))
    if limit is None and only is None:
        _compare(sources, rows)
    return Built(
        folder=folder,
        drawn=len(drawn),
        pictures=len(rows),
        splits=found["splits"],
        tiers=found["tiers"],
    )


def _fetch(sources: Sequence[Source], cache: Path, watch: Watch) -> dict[str, Archive]:
    names = dict.fromkeys(name for source in sources for name in source.packages)
    packages = [PACKAGES[name] for name in names]
    if any(package.registry == "deb" for package in packages):
        need_program("dpkg-deb", cache)
    if any(package.name.startswith("@dicebear/") for package in packages):
        need_program("node", cache)
    watch.begin("fetching", None)
    return fetch_all(packages, cache)


def _draw(
    sources: Sequence[Source],
    at_hand: Mapping[str, Archive],
    folder: Path,
    limit: int | None,
    watch: Watch,
) -> dict[str, Path]:
    """The file of each source's pictures."""
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)  # left over from a build that was killed
    archives = Archives(at_hand=at_hand, scratch=scratch)
    staged = {}
    for source in sources:
        watch.begin(source.name, min(source.pictures, limit or source.pictures) or None)
        staged[source.name] = stage(
            source, archives, folder, limit=limit, advance=watch.advance
        )
    shutil.rmtree(scratch, ignore_errors=True)
    return staged


def _assemble(drawn: Sequence[Staged]) -> list[Row]:
    if not drawn:
        raise DataError("no picture was left; choose more sources or --share-alike")
    return assemble(drawn)


def _write_sources(
    folder: Path,
    found: Mapping[str, Any],
    at_hand: Mapping[str, Archive],
    share_alike: bool,
    limit: int | None,
) -> None:
    libraries = ("datasets", "pillow", "pyarrow", "resvg-py")
    record = {
        "recipe": RECIPE,
        "share_alike": share_alike,
        "limit": limit,
        **found,
        "archives": {
            archive.path.name: {
                "package": archive.package.name,
                "version": archive.version,
                "sha256": archive.sha256,
                "bytes": archive.path.stat().st_size,
            }
            for archive in at_hand.values()
        },
        "libraries": {name: importlib.metadata.version(name) for name in libraries},
    }
    text = json.dumps(record, indent=1, ensure_ascii=False)
    _write_text(folder / "SOURCES.json", text + "\n")


def _write_text(path: Path, text: str) -> None:
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _compare(sources: Sequence[Source], rows: Sequence[Row]) -> None:
    """Warn where a full build differs from the one the shipped model was trained on."""
    found = Counter(row.source for row in rows if is_attribution(row.licence))
    for source in sources:
        arrived = found[source.name]
        if arrived != source.pictures:
            logger.warning(
                "%s gives %d pictures, the recipe expects %d; another version of "
                "Pillow or resvg-py may draw differently",
                source.name,
                arrived,
                source.pictures,
            )
