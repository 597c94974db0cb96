import numpy as np
import pytest

from cm3leon.corpus.drawings import Facts
from cm3leon.corpus.rows import assemble
from cm3leon.corpus.sources import SOURCES
from cm3leon.corpus.staging import Staged

MIXED = next(source for source in SOURCES if source.name == "gcompris")
NOTO = next(source for source in SOURCES if source.name == "noto")


def picture(key, label, looks, licence="CC-BY-2.0", source=MIXED, **more):
    """`looks`: pictures of the same number are near-duplicates."""
    return Staged(
        source=source,
        place=looks,
        facts=Facts(
            key=key, label=label, style="photo", licence=licence, author="", **more
        ),
        thumbnail=np.full(768, 1000 * looks, dtype=np.uint16),
        grey=False,
        colors=(),
    )


def test_a_free_picture_stays_though_a_stricter_one_came_first():
    strict = picture("cat1", "cat", 1, licence="CC-BY-SA-3.0")
    free = picture("cat2", "cat", 1)
    assert [row.id for row in assemble([strict, free])] == ["gcompris/cat2"]


def test_a_free_picture_has_its_id_though_a_stricter_one_came_first():
    strict = picture("cat", "cat", 1, licence="GPL-3.0+")
    free = picture("Cat!", "cat", 2)
    rows = assemble([strict, free])
    assert [row.id for row in rows] == ["gcompris/cat", "gcompris/catx"]
    assert rows[0].licence == "CC-BY-2.0"


def test_the_plain_emoji_stays_and_its_skin_tone_goes():
    toned = picture("hand-dark", "hand with dark skin tone", 1, toned=True)
    [row] = assemble([toned, picture("hand", "hand", 1)])
    assert row.id == "gcompris/hand"
    assert row.captions[-1] == "hand with dark skin tone"


@pytest.mark.parametrize(
    ("other", "taken"),
    [
        (picture("b", "tree and cat", 1), True),
        (picture("b", "dog", 1), False),
        (picture("b", "tree and cat", 1, source=NOTO), False),
        (picture("b", "tree and cat", 1, licence="GPL-3+"), False),
    ],
    ids=["same", "other concept", "other source", "other licence"],
)
def test_labels_of_near_duplicates_are_taken_over_for_the_same_thing(other, taken):
    [row] = assemble([picture("a", "cat and tree", 1), other])
    assert ("tree and cat" in row.captions) is taken


def test_only_free_pictures_count_as_others_of_the_same_concept():
    """Or adding strict ones would move drawings into test_style."""
    names = [source for source in SOURCES if not source.share_alike][:3]
    for count in range(1500):
        pictures = [
            picture(f"a{count}", "owl", number, source=source)
            for number, source in enumerate(names)
        ]
        alone = {row.id: row.split for row in assemble(pictures[:2])}
        assert set(alone.values()) == {"train"}
        strict = picture("s", "owl", 9, licence="GPL-3+", source=NOTO)
        more = {row.id: row.split for row in assemble([*pictures[:2], strict])}
        assert {name: more[name] for name in alone} == alone
        if "test_style" in {row.split for row in assemble(pictures)}:
            break
    else:
        pytest.fail("no drawing was held out")
