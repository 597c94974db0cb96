import hashlib
import json
import logging

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm3leon.corpus import build as building
from cm3leon.corpus import sources
from cm3leon.corpus.build import Unwatched
from cm3leon.corpus.splits import SPLITS
from cm3leon.errors import ConfigError, DataError

WITH_SHARE_ALIKE = "twemoji,noto,fluent-emoji-flat,game-icons,openmoji,openmoji-black"


def rows(folder):
    return [
        {"split": split, **row}
        for split in SPLITS
        for path in sorted(folder.glob(f"{split}-*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def checksums(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


def by_id(folder):
    return {row["id"]: row for row in rows(folder)}


def test_datasets_reads_every_split_of_a_build(built, tmp_path):
    folder = built().folder
    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(read) <= set(SPLITS)
    assert sum(len(split) for split in read.values()) == len(rows(folder))
    row = next(iter(read.values()))[0]
    assert isinstance(row["image"], Image.Image)
    assert row["image"].size == (128, 128)
    assert isinstance(row["captions"], list)


def test_rows_say_what_where_from_and_under_which_licence(built):
    row = by_id(built().folder)["twemoji/red-apple"]
    assert row["caption"] == "a flat emoji of a red apple"
    assert row["captions"] == [
        "red apple",
        "a red apple, flat emoji",
        "a flat emoji of a red apple",
        "a flat emoji of a red apple, red",
        "red apple, fruit, school",
    ]
    assert (row["licence"], row["author"]) == ("CC-BY-4.0", "Twitter and contributors")
    assert (row["concept"], row["unicode"], row["tier"]) == (
        "apple-red",
        "1f34e",
        "core",
    )


def test_icons_find_their_names(built):
    labels = {name: row["label"] for name, row in by_id(built().folder).items()}
    assert labels["noto/flag-for-flag-peru"] == "flag of Peru"
    assert labels["noto/sleeping-giant"] == "sleeping giant"
    assert labels["twemoji/waving-hand-dark"] == "waving hand with dark skin tone"
    assert labels["game-icons/owl-eyes"] == "owl eyes"
    assert "twemoji/letter-x" not in labels
    assert "game-icons/github-logo" not in labels


def test_a_near_duplicate_of_an_earlier_picture_is_left_out(built):
    corpus = built()
    assert "fluent-emoji-flat/same-again" not in by_id(corpus.folder)
    assert corpus.drawn == corpus.pictures + 1


def test_two_builds_give_the_same_bytes(built):
    first, second = built("first").folder, built("second").folder
    assert checksums(first) == checksums(second)
    before = checksums(first)
    built("first")
    assert checksums(first) == before


def test_a_build_that_was_stopped_goes_on_with_the_source_it_was_at(
    built, monkeypatch, tmp_path
):
    drawn = []

    class Stopping(Unwatched):
        def begin(self, name, pictures):
            if name == "fluent-emoji-flat" and "fluent-emoji-flat" not in drawn:
                drawn.append(name)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(watch=Stopping())
    stage = tmp_path / "corpus" / "stage"
    staged = sorted(path.name for path in stage.glob("*.parquet"))
    assert staged == ["noto.parquet", "twemoji.parquet"]
    times = {path: path.stat().st_mtime_ns for path in stage.glob("*.parquet")}
    folder = built(watch=Stopping()).folder
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert checksums(folder) == checksums(built("straight").folder)


def test_a_source_stopped_while_it_draws_leaves_nothing_half_written(
    built, monkeypatch, tmp_path
):
    from cm3leon.corpus import staging

    def stop(image):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(staging, "thumbnail", stop)
        with pytest.raises(KeyboardInterrupt):
            built()
    assert not list((tmp_path / "corpus" / "stage").glob("*.parquet*"))
    assert built().pictures > 0


def test_by_default_every_licence_asks_for_attribution_at_most(built):
    licences = {row["licence"] for row in rows(built().folder)}
    assert licences == {"CC-BY-4.0", "Apache-2.0", "MIT", "CC-BY-3.0"}


def test_share_alike_pictures_change_nothing_about_the_others(built):
    plain = rows(built("plain").folder)
    every = rows(built("all", WITH_SHARE_ALIKE, share_alike=True).folder)
    added = [row for row in every if row["source"].startswith("openmoji")]
    assert {row["licence"] for row in added} == {"CC-BY-SA-4.0"}
    assert {row["label"] for row in added} == {"red apple", "bee hotel"}
    assert [row for row in every if row not in added] == plain


def test_a_limit_holds_for_each_source(built):
    found = [row["source"] for row in rows(built(limit=1).folder)]
    assert sorted(found) == sorted(set(found))


def test_files_of_an_earlier_build_do_not_stay(built, tmp_path):
    stale = tmp_path / "corpus" / "train-00007-of-00009.parquet"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    built()
    assert not stale.exists()


def test_sources_and_credits_are_written_down(built, cache):
    folder = built().folder
    record = json.loads((folder / "SOURCES.json").read_text())
    assert record["pictures"] == len(rows(folder))
    archive = record["archives"]["iconify-json-noto-1.2.9.tgz"]
    path = cache / "iconify-json-noto-1.2.9.tgz"
    assert archive["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    page = (folder / "ATTRIBUTION.md").read_text()
    assert "| noto | @iconify-json/noto 1.2.9 | Apache-2.0 | Google | 4 |" in page


def test_another_archive_than_the_pinned_one_is_refused(built, cache, monkeypatch):
    import dataclasses

    name = "@iconify-json/noto"
    pinned = dataclasses.replace(building.PACKAGES[name], sha256="0" * 64)
    monkeypatch.setitem(building.PACKAGES, name, pinned)
    own = hashlib.sha256((cache / pinned.file).read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"{own}, pinned is {'0' * 64}"):
        built()


def test_a_full_build_that_differs_from_the_recipe_says_so(built, monkeypatch, caplog):
    few = [source for source in sources.SOURCES if source.name == "noto"]
    monkeypatch.setattr(building, "choose_sources", lambda *_, **__: few)
    with caplog.at_level(logging.WARNING):
        built(only=None)
    assert "noto gives 4 pictures, the recipe expects 3718" in caplog.text


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(built, limit):
    with pytest.raises(ConfigError, match=f"limit is {limit}"):
        built(limit=limit)
