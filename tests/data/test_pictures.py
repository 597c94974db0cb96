import io
import json
import os
import struct
import tarfile
import zlib

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cm3leon.data.pictures import Pictures
from cm3leon.errors import DataError

RED, BLUE = (220, 20, 20), (20, 20, 220)


def encoded(colour=RED, size=(8, 6), form="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(file, form)
    return file.getvalue()


def bomb(side=30_000):
    """A valid head of a PNG that would be 900 million pixels, in 60 bytes."""

    def chunk(name, content):
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def write_folder(folder, records, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
    if lines:
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_corpus(folder, splits):
    """Parquet as `cm3leon data build` writes it."""
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "caption": datasets.Value("string"),
            "captions": datasets.List(datasets.Value("string")),
            "licence": datasets.Value("string"),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        columns = [
            {
                "id": name,
                "image": {"bytes": content, "path": f"{name}.png"},
                "caption": captions[0] if captions else "",
                "captions": captions,
                "licence": "MIT",
            }
            for name, content, captions in rows
        ]
        table = pa.Table.from_pylist(columns, schema=features.arrow_schema)
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def opened(tmp_path):
    def opened(path, split="train", **more):
        return Pictures.open(path, split, cache=tmp_path / "cache", **more)

    return opened


def kinds(pictures):
    return dict(pictures.report.counts)


class TestFolders:
    def test_metadata_gives_captions_and_the_rest(self, tmp_path, opened):
        folder = write_folder(
            tmp_path / "pets",
            [
                {"file_name": "a.png", "text": "a red thing", "artist": "Ada"},
                {"file_name": "b/b.jpg", "captions": ["blue", "a blue thing"]},
            ],
            {"a.png": encoded(), "b/b.jpg": encoded(BLUE, form="JPEG")},
        )
        first, second = opened(folder)
        assert first.id == "a.png"
        assert first.captions == ("a red thing",)
        assert first.metadata == {"artist": "Ada"}
        assert first.image.mode == "RGB"
        assert first.image.getpixel((0, 0)) == RED
        assert second.caption == "blue"
        assert second.captions == ("blue", "a blue thing")

    def test_a_text_file_beside_a_picture_is_its_caption(self, tmp_path, opened):
        files = {"a.png": encoded(), "a.txt": "eine rote Fläche\n".encode()}
        [picture] = opened(write_folder(tmp_path / "pets", [], files))
        assert picture.captions == ("eine rote Fläche",)

    def test_a_table_of_metadata_is_read_too(self, tmp_path, opened):
        table = b'file_name,caption\na.png,"red, all of it"\n'
        files = {"a.png": encoded(), "metadata.csv": table}
        [picture] = opened(write_folder(tmp_path / "pets", [], files))
        assert picture.caption == "red, all of it"

    def test_each_fault_is_counted_named_and_skipped(self, tmp_path, opened):
        good = encoded(size=(64, 64))
        folder = write_folder(
            tmp_path / "pets",
            [
                {"file_name": "good.png", "text": "red"},
                {"file_name": "cut.png", "text": "red"},
                {"file_name": "bomb.png", "text": "red"},
                {"file_name": "words.png", "text": "red"},
                {"file_name": "empty.png", "text": " "},
                {"file_name": "gone.png", "text": "red"},
                {"file_name": "../outside.png", "text": "red"},
                "{no json",
            ],
            {
                "good.png": good,
                "cut.png": good[: len(good) // 2],
                "bomb.png": bomb(),
                "words.png": b"not a picture",
                "empty.png": good,
                "nothing.png": good,
            },
        )
        (tmp_path / "outside.png").write_bytes(good)
        pictures = opened(folder)
        assert len(pictures) == 4
        report = pictures.scan()
        assert len(pictures) == report.good == 1
        assert report.total == 9
        assert kinds(pictures) == {
            "no picture": 2,
            "no caption": 2,
            "unreadable picture": 2,
            "too many pixels": 1,
            "unreadable metadata": 1,
        }
        names = " ".join(problem.name for problem in report.problems)
        for name in ("cut", "bomb", "words", "empty", "gone", "outside", "nothing"):
            assert f"{name}.png" in names
        assert "metadata.jsonl line 8" in names

    def test_splits_are_folders(self, tmp_path, opened):
        for split, colour in (("train", RED), ("test", BLUE)):
            write_folder(
                tmp_path / "pets" / split,
                [{"file_name": "a.png", "text": split}],
                {"a.png": encoded(colour)},
            )
        assert [picture.caption for picture in opened(tmp_path / "pets")] == ["train"]
        assert opened(tmp_path / "pets", "test")[0].image.getpixel((0, 0)) == BLUE
        with pytest.raises(DataError, match="has no split dev"):
            opened(tmp_path / "pets", "dev")


class TestTars:
    def test_files_of_one_key_are_one_picture(self, tmp_path, opened):
        path = write_tar(
            tmp_path / "0.tar",
            [
                ("x/1.png", encoded()),
                ("x/1.txt", b"red"),
                ("x/2.jpg", encoded(BLUE, form="JPEG")),
                ("x/2.json", json.dumps({"caption": "blue", "by": "Ada"}).encode()),
            ],
        )
        first, second = opened(path)
        assert (first.id, first.caption) == ("0.tar/x/1", "red")
        assert first.image.getpixel((0, 0)) == RED
        assert second.caption == "blue"
        assert second.metadata == {"by": "Ada"}

    def test_faults_do_not_stop_the_rest(self, tmp_path, opened):
        members = [
            ("1.png", encoded()),
            ("1.txt", b"red"),
            ("2.png", encoded()),
            ("3.txt", b"alone"),
            ("4.png", encoded()),
            ("4.json", b"{broken"),
            ("5.png", encoded()[:40]),
            ("5.txt", b"cut"),
            ("6.png", encoded()),
            ("6.txt", b"also red"),
        ]
        write_tar(tmp_path / "0.tar", members)
        pictures = opened(tmp_path)
        assert [picture.caption for picture in pictures] == ["red", "also red"]
        assert kinds(pictures) == {
            "no caption": 1,
            "no picture": 1,
            "unreadable metadata": 1,
            "unreadable picture": 1,
        }

    def test_a_tar_that_was_cut_off_gives_what_is_before_the_cut(
        self, tmp_path, opened
    ):
        members = [("1.png", encoded()), ("1.txt", b"red"), ("2.png", bytes(9_000))]
        path = write_tar(tmp_path / "0.tar", members)
        os.truncate(path, 4_000)
        pictures = opened(path)
        assert [picture.caption for picture in pictures] == ["red"]
        assert str(path) in pictures.report.problems[0].name


class TestParquet:
    def test_a_corpus_opens_by_split(self, tmp_path, opened):
        folder = write_corpus(
            tmp_path / "corpus",
            {
                "train": [("noto/cat", encoded(), ["cat", "a flat emoji of a cat"])],
                "test_style": [("noto/owl", encoded(BLUE), ["owl"])],
            },
        )
        (folder / "stage").mkdir()
        (folder / "stage" / "noto.parquet").write_bytes(b"of no concern")
        [picture] = opened(folder)
        assert picture.id == "noto/cat"
        assert picture.captions == ("cat", "a flat emoji of a cat")
        assert picture.metadata == {"licence": "MIT"}
        assert [p.id for p in opened(folder, "test_style")] == ["noto/owl"]
        with pytest.raises(DataError, match="has no split test; it has test_style, tr"):
            opened(folder, "test")

    def test_a_file_that_changes_is_read_anew(self, tmp_path, opened):
        for caption in ("first", "second"):
            rows = {"train": [("a", encoded(), [caption])]}
            folder = write_corpus(tmp_path / "corpus", rows)
            file = folder / "train-00000-of-00001.parquet"
            os.utime(file, (1, len(caption)))
            assert opened(folder)[0].caption == caption

    def test_columns_are_found_by_type_or_named(self, tmp_path, opened):
        path = tmp_path / "other.parquet"
        columns = {"picture": [encoded()], "text": ["red"], "note": ["mine"]}
        pq.write_table(pa.table(columns), path)
        [picture] = opened(path)
        assert picture.id == "other.parquet row 0"
        assert (picture.caption, picture.metadata) == ("red", {"note": "mine"})
        assert opened(path, image="picture", caption="note")[0].caption == "mine"
        with pytest.raises(DataError, match="no column words; it has picture, text"):
            opened(path, caption="words")

    def test_faults_are_counted_by_name(self, tmp_path, opened):
        rows = [
            ("good", encoded(), ["red"]),
            ("cut", encoded()[:50], ["red"]),
            ("bomb", bomb(), ["red"]),
            ("mute", encoded(), []),
        ]
        folder = write_corpus(tmp_path / "corpus", {"train": rows})
        pictures = opened(folder)
        with pytest.raises(DataError, match="cut: unreadable picture"):
            pictures[1]
        report = pictures.scan()
        assert [problem.name for problem in report.problems] == ["mute", "cut", "bomb"]
        assert [picture.id for picture in pictures] == ["good"]

    def test_a_damaged_file_is_a_problem_of_its_own(self, tmp_path, opened):
        write_corpus(tmp_path, {"train": [("a", encoded(), ["red"])]})
        good = tmp_path / "train-00000-of-00001.parquet"
        good.rename(tmp_path / "train-00000-of-00002.parquet")
        (tmp_path / "train-00001-of-00002.parquet").write_bytes(b"PAR1 and no more")
        pictures = opened(tmp_path)
        assert len(pictures) == 1
        assert kinds(pictures) == {"unreadable file": 1}


class TestCollections:
    def test_nothing_usable_is_an_error_that_says_why(self, tmp_path, opened):
        folder = write_folder(tmp_path / "pets", [], {"a.png": encoded()})
        with pytest.raises(DataError, match=r"1 no caption \(first: .*a\.png\)"):
            opened(folder)
        (folder / "a.txt").write_text("red")
        (folder / "a.png").write_bytes(b"")
        with pytest.raises(DataError, match=r"no picture of .* can be used"):
            opened(folder).scan()

    @pytest.mark.parametrize("name", ["gone", "empty", "notes.md"])
    def test_what_holds_no_pictures_is_refused(self, tmp_path, opened, name):
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.md").write_text("hello")
        with pytest.raises(DataError, match=name):
            opened(tmp_path / name)

    def test_captions_come_without_decoding(self, tmp_path, opened):
        files = {"a.png": b"broken", "a.txt": b"one\ntwo", "b.png": b"", "b.txt": b"x"}
        pictures = opened(write_folder(tmp_path / "pets", [], files))
        assert list(pictures.captions()) == [("one", "two"), ("x",)]

    def test_iterating_skips_what_scan_would_leave_out(self, tmp_path, opened):
        files = {"a.png": encoded()[:50], "a.txt": b"a", "b.png": encoded()}
        pictures = opened(write_folder(tmp_path / "p", [], files | {"b.txt": b"b"}))
        assert [picture.id for picture in pictures] == ["b.png"]
        before = pictures.report
        assert pictures.scan() == before

    def test_pictures_are_grouped_by_what_their_metadata_says(self, tmp_path, opened):
        records = [
            {"file_name": f"{n}.png", "caption": "it" if n else "", "tier": tier}
            for n, tier in enumerate(["core", "core", "mono", "core"])
        ]
        write_folder(
            tmp_path / "own", records, {f"{n}.png": encoded() for n in range(4)}
        )
        pictures = opened(tmp_path / "own")
        tiers = pictures.groups("tier")
        assert {name: len(numbers) for name, numbers in tiers.items()} == {
            "core": 2,
            "mono": 1,
        }
        for name, numbers in tiers.items():
            assert all(pictures[n].metadata["tier"] == name for n in numbers)
        assert pictures.groups("mood") == {"all": [0, 1, 2]}

    def test_a_limit_of_pixels_is_kept(self, tmp_path, opened):
        files = {"a.png": encoded(size=(9, 9)), "a.txt": b"a", "b.png": encoded()}
        folder = write_folder(tmp_path / "p", [], files | {"b.txt": b"b"})
        pictures = opened(folder, most_pixels=80)
        assert [picture.id for picture in pictures] == ["b.png"]
        assert "9 x 9 = 81" in pictures.report.problems[0].reason
