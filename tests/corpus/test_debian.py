"""Sources whose packages are Debian's: folders here, no archive is unpacked."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cm3leon.corpus.copyrights import Copyrights, Credit
from cm3leon.corpus.drawings import Source
from cm3leon.corpus.endless_sky import draw_landscapes, draw_planets
from cm3leon.corpus.gcompris import draw_gcompris
from cm3leon.corpus.qt_resources import read_bundle
from cm3leon.corpus.share_alike import draw_art4apps, draw_costumes, draw_stamps
from cm3leon.errors import DataError

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: The authors
License: GPL-3+

Files: images/land/* src/activities/lang/*
Copyright: 2014 Ada
           2015 Ben
License: CC-BY-2.0

Files: images/land/fog* images/planet/*
Copyright: Cy
License: CC-BY-SA-4.0 and more
"""


def source(package, draw, **more):
    more = {"style": "photo", "licence": "per file", "author": "them", **more}
    return Source(name="x", package=package, draw=draw, **more)


def scene(path, size=(40, 20), mode="RGB", form=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(path.name))
    levels = random.integers(0, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).convert(mode).save(path, form)
    return path


def copyright_file(tmp_path, package):
    path = tmp_path / package / "usr/share/doc" / package / "copyright"
    path.parent.mkdir(parents=True)
    path.write_text(COPYRIGHT)
    return path


def bundle(files, version=1):
    """A Qt bundle with files in one folder, the last of them packed with zlib."""
    texts = ["", "activities", *files]
    names, places = b"", {}
    for text in texts:
        places[text] = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
    step = b"" if version == 1 else bytes(8)
    tree = struct.pack(">IHII", 0, 2, 1, 1) + step
    tree += struct.pack(">IHII", places["activities"], 2, len(files), 2) + step
    data = b""
    for number, (name, content) in enumerate(files.items()):
        packed = number == len(files) - 1
        if packed:
            content = struct.pack(">I", len(content)) + zlib.compress(content)
        tree += struct.pack(">IHHHI", places[name], packed, 0, 0, len(data)) + step
        data += struct.pack(">I", len(content)) + content
    head = 20
    return (
        b"qres"
        + struct.pack(">4I", version, head, head + len(tree), head + len(tree + data))
        + tree
        + data
        + names
    )


def test_the_last_paragraph_that_covers_a_file_credits_it(tmp_path):
    copyrights = Copyrights(copyright_file(tmp_path, "p"))
    assert copyrights.credit("images/land/sea.jpg") == Credit(
        "CC-BY-2.0", "2014 Ada 2015 Ben"
    )
    assert copyrights.credit("images/land/fog1.jpg") == Credit("CC-BY-SA-4.0", "Cy")
    assert copyrights.credit("readme").licence == "GPL-3+"


def test_landscapes_give_squares_with_the_licence_of_each(tmp_path, unpacked):
    root = tmp_path / "sky/usr/share/games/endless-sky"
    copyright_file(tmp_path, "sky")
    scene(root / "images/land/sea3.jpg")
    scene(root / "images/land/fog1.jpg", size=(20, 20))
    scene(root / "images/land/unknown.jpg")
    found = [d.facts for d in draw_landscapes(source("sky", draw_landscapes), unpacked)]
    assert [facts.key for facts in found] == ["fog1-c", "sea3-l", "sea3-r"]
    assert [facts.licence for facts in found] == ["CC-BY-SA-4.0"] + ["CC-BY-2.0"] * 2
    assert found[1].concept == found[2].concept == "sea3"
    assert found[1].label == "the sea and the coast"


def test_planets_stand_on_black(tmp_path, unpacked):
    copyright_file(tmp_path, "sky")
    root = tmp_path / "sky/usr/share/games/endless-sky"
    (root / "images/planet").mkdir(parents=True)
    Image.new("RGBA", (9, 9)).save(root / "images/planet/gas4.png")
    [(image, facts)] = draw_planets(source("sky", draw_planets), unpacked)
    assert facts.label == "gas giant planet in space"
    assert image.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("version", [1, 2])
def test_a_bundle_gives_back_its_files(tmp_path, version):
    files = {"cat.webp": b"a cat", "ö.txt": bytes(500)}
    (tmp_path / "x.rcc").write_bytes(bundle(files, version))
    expected = {f"/activities/{name}": content for name, content in files.items()}
    assert read_bundle(tmp_path / "x.rcc") == expected


@pytest.mark.parametrize("content", [b"", b"qres", b"other bytes of some length"])
def test_what_is_no_bundle_is_refused(tmp_path, content):
    (tmp_path / "x.rcc").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.rcc"):
        read_bundle(tmp_path / "x.rcc")


def test_pictures_of_bundles_are_told_apart(tmp_path, unpacked, monkeypatch):
    from cm3leon.corpus import gcompris

    photo = scene(tmp_path / "a.webp", (30, 20)).read_bytes()
    cut_out = Image.new("RGB", (30, 30), "white")
    cut_out.paste((200, 0, 0), (8, 8, 22, 22))
    cut_out.save(tmp_path / "b.webp", lossless=True)
    folder = "/gcompris/src/activities"
    files = {
        f"{folder}/lang/resource/animals/cat1.webp": photo,
        f"{folder}/lang/resource/animals/background.webp": photo,
        f"{folder}/lang/other/dog.webp": photo,
        f"{folder}/farm/resource/redBarn.webp": (tmp_path / "b.webp").read_bytes(),
    }
    monkeypatch.setattr(gcompris, "_BUNDLES", {"categorization": ""})
    monkeypatch.setattr(gcompris, "read_bundle", lambda path: files)
    copyright_file(tmp_path, "gc")
    found = [d.facts for d in draw_gcompris(source("gc", draw_gcompris), unpacked)]
    assert [(f.label, f.style, f.licence) for f in found] == [
        ("red barn", "cut-out photo on white", "GPL-3.0+"),
        ("cat", "photo", "CC-BY-2.0"),
    ]
    assert found[1].key == "lang/resource/animals/cat1.webp"
    assert found[1].keywords == ("animals", "animals")


def test_stamps_have_the_sentences_beside_them(tmp_path, unpacked):
    root = tmp_path / "tp/usr/share/tuxpaint/stamps"
    scene(root / "animals/birds/owl.png")
    (root / "animals/birds/owl.txt").write_text("An Owl. It sees by night.\nde=...\n")
    (root / "animals/alone.txt").write_text("Nothing to see")
    (root / "math").mkdir()
    (root / "math/one.txt").write_text("One")
    stamps = source("tp", draw_stamps, style="cut-out photo on white")
    [(_, facts)] = draw_stamps(stamps, unpacked)
    assert facts.label == "owl"
    assert facts.sentence == "An Owl. It sees by night."
    assert (facts.style, facts.keywords) == (
        "cut-out photo on white",
        ("animals", "birds"),
    )


def test_costumes_are_named_by_their_files(tmp_path, unpacked):
    root = tmp_path / "s/usr/share/scratch/Media"
    scene(root / "Backgrounds/Nature/beach-malibu.jpg")
    scene(root / "Costumes/People/dan-walking1.png", (9, 9))
    scene(root / "Costumes/Letters/a-block.png", (9, 9))
    (root / "readme.txt").write_text("hello")
    found = [d.facts for d in draw_costumes(source("s", draw_costumes), unpacked)]
    assert [(facts.label, facts.style) for facts in found] == [
        ("beach malibu", "background photo"),
        ("person walking", "cut-out photo on white"),
    ]


def test_actions_share_their_concept_with_the_thing(tmp_path, unpacked):
    root = tmp_path / "a/usr/share/games/pysiogame/res/images/art4apps"
    scene(root / "actions/swim.jpg")
    [(_, facts)] = draw_art4apps(source("a", draw_art4apps), unpacked)
    assert (facts.label, facts.concept) == ("the action swim", "swim")
