import numpy as np
import pytest

from cm3leon.data.shards import (
    Alphabets,
    Record,
    Shards,
    TokenSegment,
    write_shards,
    written,
)
from cm3leon.errors import DataError, ShardCorrupt

ALPHABETS = Alphabets(
    text_tokenizer="abc", text_size=300, codes_per_image=16, codebook_size=64
)


def records(count, start=0):
    for number in range(start, count):
        yield Record(
            f"r{number}",
            "core" if number % 3 else "mono",
            (
                TokenSegment("text", ((number, 1), (2, 3, number))),
                TokenSegment("image", (tuple(range(16)),)),
            ),
            ((TokenSegment("text", ((number,),)),),) * (number % 3),
        )


@pytest.fixture
def folder(tmp_path):
    assert list(write_shards(tmp_path, records(10), ALPHABETS, size=4)) == [4, 8, 10]
    return tmp_path


def test_records_come_back_as_they_were_written(folder):
    shards = Shards(folder)
    assert [shards[i] for i in range(len(shards))] == list(records(10))
    assert shards.alphabets == ALPHABETS


def test_groups_cover_every_record_once(folder):
    groups = Shards(folder).groups()
    assert sorted(np.concatenate(list(groups.values())).tolist()) == list(range(10))
    assert groups["mono"].tolist() == [0, 3, 6, 9]


def test_a_build_that_was_stopped_goes_on_behind_its_last_whole_shard(tmp_path):
    builder = write_shards(tmp_path, records(10), ALPHABETS, size=4)
    next(builder)
    builder.close()
    (tmp_path / "shard-00001.partial").write_bytes(b"half a shard")
    done = written(tmp_path, ALPHABETS)
    assert done == 4
    list(write_shards(tmp_path, records(10, done), ALPHABETS, size=4, skip=done))
    shards = Shards(tmp_path)
    assert [shards[i] for i in range(len(shards))] == list(records(10))


def test_the_same_records_give_the_same_bytes(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    list(write_shards(other, records(10), ALPHABETS, size=4))
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (other / path.name).read_bytes()


def test_shards_of_other_tokenizers_are_not_mixed(folder):
    other = Alphabets(
        text_tokenizer="xyz", text_size=300, codes_per_image=16, codebook_size=64
    )
    with pytest.raises(DataError, match="other tokenizers"):
        written(folder, other)


def test_skipping_what_was_never_written_is_refused(folder):
    with pytest.raises(DataError, match="does not hold 3 records"):
        list(write_shards(folder, records(10, 3), ALPHABETS, skip=3))


def test_an_altered_shard_is_named(folder):
    path = folder / "shard-00001.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ShardCorrupt, match=r"shard-00001\.arrow differs"):
        Shards(folder)


def test_a_truncated_or_missing_shard_is_named(folder):
    path = folder / "shard-00002.arrow"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ShardCorrupt, match=r"shard-00002\.arrow is missing or trunc"):
        Shards(folder, verify=False)
    path.unlink()
    with pytest.raises(ShardCorrupt, match=r"shard-00002\.arrow is missing"):
        Shards(folder)


def test_a_folder_without_shards_says_how_to_make_some(tmp_path):
    with pytest.raises(DataError, match="cm3leon data shards"):
        Shards(tmp_path)
