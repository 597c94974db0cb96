"""A registry in a folder: a few tiny packages in the formats of the real ones."""

import dataclasses
import hashlib
import io
import json
import tarfile
from contextlib import contextmanager

import pytest

RED, BLUE, GREEN, YELLOW = "#dc2828", "#3264dc", "#46aa46", "#fad73c"


def circle(colour):
    return f'<circle cx="18" cy="18" r="14" fill="{colour}"/>'


def square(colour):
    return f'<path d="M4 4h28v28H4z" fill="{colour}"/>'


def triangle(colour):
    return f'<path d="M18 2 34 32H2z" fill="{colour}"/>'


def icon_set(icons, characters=None):
    """The files of an `@iconify-json` package."""
    bodies = {name: {"body": body} for name, body in icons.items()}
    return {
        "icons.json": {"prefix": "x", "icons": bodies, "width": 36, "height": 36},
        "chars.json": characters or {},
        "metadata.json": {"categories": {"Food": list(icons)}},
    }


def emoji(label, hexcode, subgroup=0, tags=(), skins=()):
    return {
        "label": label,
        "hexcode": hexcode,
        "emoji": "".join(chr(int(code, 16)) for code in hexcode.split("-")),
        "tags": list(tags),
        "group": 0,
        "subgroup": subgroup,
        "skins": list(skins),
    }


PACKAGES = {
    "emojibase-data": {
        "en/data.json": [
            emoji("red apple", "1F34E", tags=["fruit"]),
            emoji("blueberries", "1FAD0", tags=["fruit"]),
            emoji("flag: Peru", "1F1F5-1F1EA", subgroup=1),
            emoji(
                "waving hand",
                "1F44B",
                subgroup=2,
                skins=[
                    {
                        "label": "waving hand: dark skin tone",
                        "hexcode": "1F44B-1F3FF",
                        "tone": 5,
                    }
                ],
            ),
        ],
        "meta/groups.json": {
            "groups": {"0": "things"},
            "subgroups": {"0": "food-fruit", "1": "country-flag", "2": "hand"},
        },
    },
    "emojilib": {"dist/emoji-en-US.json": {"\U0001f34e": ["red_apple", "school"]}},
    "@iconify-json/twemoji": icon_set(
        {
            "red-apple": circle(RED),
            "blueberries": circle(BLUE),
            "waving-hand": square(YELLOW),
            "waving-hand-dark": square("#5a3214"),
            "letter-x": square(RED),
        },
        {"1f34e": "red-apple", "1fad0": "blueberries", "1f44b": "waving-hand"},
    ),
    "@iconify-json/noto": icon_set(
        {
            "red-apple": square(RED),
            "blueberries": square(BLUE),
            "flag-for-flag-peru": triangle(RED),
            "sleeping-giant": triangle(GREEN),
        },
        {"1f34e": "red-apple", "1fad0": "blueberries"},
    ),
    "@iconify-json/fluent-emoji-flat": icon_set(
        {"red-apple": triangle("#a01010"), "same-again": circle(RED)},
        {"1f34e": "red-apple"},
    ),
    "@iconify-json/game-icons": icon_set(
        {
            "owl-eyes": triangle("currentColor"),
            "github-logo": circle("currentColor"),
        }
    ),
    "@iconify-json/openmoji": icon_set(
        {"red-apple": circle("#dd2929"), "bee-hotel": triangle(YELLOW)},
        {"1f34e": "red-apple", "E000": "bee-hotel"},
    ),
    "openmoji": {
        "data/extras-openmoji.csv": (
            "hexcode,annotation,openmoji_tags,group,subgroups\n"
            'E000,bee hotel,"insect, house",extras-openmoji,animals\n'
        ),
        "black/svg/1F34E.svg": (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
            '<circle cx="36" cy="36" r="20" fill="none" stroke="#000" '
            'stroke-width="4"/></svg>'
        ),
    },
}
SOURCES = "twemoji,noto,fluent-emoji-flat,game-icons"


def write_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A folder with the archive of every package of `PACKAGES`."""
    from cm3leon.corpus.packages import PACKAGES as PINNED

    folder = tmp_path_factory.mktemp("archives")
    for name, files in PACKAGES.items():
        write_archive(folder / PINNED[name].file, files)
    return folder


@pytest.fixture
def cache(registry, monkeypatch):
    """The folder, its archives being the pinned ones."""
    from cm3leon.corpus import build
    from cm3leon.corpus.packages import PACKAGES as PINNED

    packages = {
        name: dataclasses.replace(
            PINNED[name],
            sha256=hashlib.sha256(
                (registry / PINNED[name].file).read_bytes()
            ).hexdigest(),
        )
        for name in PACKAGES
    }
    monkeypatch.setattr(build, "PACKAGES", packages)
    return registry


@pytest.fixture
def built(cache, tmp_path):
    """Builds into a folder below `tmp_path`, from the tiny packages."""
    from cm3leon.corpus.build import build

    def built(name="corpus", only=SOURCES, **more):
        return build(tmp_path / name, only=only, cache=cache, **more)

    return built


@pytest.fixture
def unpacked(tmp_path):
    """Archives whose Debian packages are folders below `tmp_path`."""
    from cm3leon.corpus.archives import Archives

    class Unpacked(Archives):
        @contextmanager
        def unpacked(self, package):
            yield tmp_path / package

    return Unpacked(at_hand={}, scratch=tmp_path)
