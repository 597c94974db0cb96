import json
from pathlib import Path

import pytest

from cm3leon.corpus.archives import Archives
from cm3leon.corpus.avatars import CORE
from cm3leon.corpus.fetch import Archive
from cm3leon.corpus.packages import PACKAGES
from cm3leon.corpus.sources import choose_sources
from cm3leon.errors import DataError
from tests.corpus.conftest import write_archive

STYLE = "@dicebear/micah"
AVATAR = {
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">'
    '<circle cx="4" cy="4" r="3"/></svg>',
    "traits": {
        "hair": ["fonze", "full"],
        "hairColor": ["#dc2828"],
        "glasses": [],
        "mouth": "smile",
        "backgroundRotation": 7,
    },
}


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Two packages, and a program `node` that draws the same person twice."""
    at_hand = {}
    for name in (CORE, STYLE):
        package = PACKAGES[name]
        write_archive(tmp_path / package.file, {"lib/index.js": f"// {name}"})
        at_hand[name] = Archive(
            package=package, path=tmp_path / package.file, version="1", sha256=""
        )
    node = tmp_path / "programs" / "node"
    node.parent.mkdir()
    (tmp_path / "person.json").write_text(json.dumps(AVATAR))
    node.write_text(
        "#!/bin/sh\n"
        "set -e\n"
        "grep -q createAvatar $1\n"
        "test -f node_modules/@dicebear/$2/lib/index.js\n"
        "test -f node_modules/@dicebear/core/lib/index.js\n"
        f"for n in 1 2; do cat {tmp_path}/person.json; echo; done\n"
    )
    node.chmod(0o755)
    monkeypatch.setenv("PATH", f"{node.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return Archives(at_hand=at_hand, scratch=Path("scratch"))


def test_every_avatar_is_drawn_and_named_by_its_traits(archives):
    [source] = choose_sources("dicebear-micah")
    drawings = list(source.draw(source, archives))
    assert [facts.key for _, facts in drawings] == ["0", "1"]
    assert drawings[0].facts.label == "person with slicked-back red hair smiling"
    assert drawings[0].image.size == (128, 128)
    assert not list(archives.scratch.iterdir())


def test_what_node_complains_of_is_passed_on(archives, tmp_path):
    (tmp_path / "programs" / "node").write_text("#!/bin/sh\necho too old >&2; exit 1\n")
    [source] = choose_sources("dicebear-micah")
    with pytest.raises(DataError, match="too old; it must be version 18 or later"):
        list(source.draw(source, archives))
