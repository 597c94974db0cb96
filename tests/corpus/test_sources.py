import re
from pathlib import Path

import pytest

from cm3leon.corpus.credits import FILE_AUTHORS, notice, shipped_table
from cm3leon.corpus.licences import is_attribution
from cm3leon.corpus.packages import PACKAGES
from cm3leon.corpus.sources import SOURCES, choose_sources
from cm3leon.errors import ConfigError

ROOT = Path(__file__).parents[2]
FREE = [source for source in SOURCES if not source.share_alike]


def test_every_package_is_pinned_and_every_pin_is_used():
    used = {name for source in SOURCES for name in source.packages}
    assert used == set(PACKAGES)
    for package in PACKAGES.values():
        assert re.fullmatch("[0-9a-f]{64}", package.sha256)


def test_sources_under_free_licences_come_first():
    assert list(SOURCES[: len(FREE)]) == FREE
    assert len({source.name for source in SOURCES}) == len(SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_a_source_is_share_alike_just_if_its_licence_is(source):
    if source.licence != "per file":
        assert is_attribution(source.licence) is not source.share_alike
    assert bool(source.pictures) is not source.share_alike
    assert source.train <= source.pictures


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("Apache-2.0", True),
        ("CC0-1.0", True),
        ("CC-BY-2.0", True),
        ("public-domain", True),
        ("CC-PDDC (public domain dedication)", True),
        ("CC-BY-SA-4.0", False),
        ("CC-BY-NC-4.0", False),
        ("CC-BY-ND-4.0", False),
        ("GPL-3+", False),
        ("GPL-2.0 (Debian copyright: Files *)", False),
        ("LGPL-3+", False),
        ("?", False),
        ("", False),
    ],
)
def test_which_licences_ask_for_attribution_only(licence, free):
    assert is_attribution(licence) is free


def test_authors_are_named_for_free_licences_only():
    for by_licence in FILE_AUTHORS.values():
        assert all(is_attribution(licence) for licence in by_licence)
    assert set(FILE_AUTHORS) == {s.name for s in FREE if s.licence == "per file"}


def test_sources_are_chosen_by_name_in_the_order_of_the_recipe():
    assert choose_sources() == FREE
    assert choose_sources(share_alike=True) == list(SOURCES)
    names = [source.name for source in choose_sources("noto, gcompris")]
    assert names == ["gcompris", "noto"]


def test_npm_names_all_that_need_no_debian_package():
    for share_alike in (False, True):
        for source in choose_sources("npm", share_alike=share_alike):
            assert {PACKAGES[name].registry for name in source.packages} == {"npm"}
    names = [source.name for source in choose_sources("npm,gcompris")]
    assert len(names) == len(choose_sources("npm")) + 1


@pytest.mark.parametrize(
    ("only", "reason"),
    [
        ("notto", "there is no source notto; did you mean noto?"),
        ("zzz", "there is no source zzz; see cm3leon data sources"),
        ("openmoji", "openmoji is under CC-BY-SA-4.0; add --share-alike"),
        (",", "names no source"),
    ],
)
def test_a_wrong_choice_says_what_is_right(only, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        choose_sources(only)


def test_the_notice_is_that_of_the_table_of_sources():
    """`cm3leon data sources --style notice > NOTICE` writes it anew."""
    assert (ROOT / "NOTICE").read_text(encoding="utf-8") == notice()


def test_the_docs_show_the_table_of_sources():
    """`cm3leon data sources --style markdown` prints what belongs there."""
    page = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")
    assert shipped_table() in page
