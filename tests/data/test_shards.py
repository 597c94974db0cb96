import numpy as np
import pytest

from cm3leon.data.shards import (
    Alphabets,
    Record,
    Shards,
    TokenSegment,
    write_shards,
)
from cm3leon.errors import DataError, ShardCorrupt

ALPHABETS = Alphabets(
    text_tokenizer="abc", text_size=300, codes_per_image=16, codebook_size=64
)


def records(count):
    for number in range(count):
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


def test_the_same_records_give_the_same_bytes(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    list(write_shards(other, records(10), ALPHABETS, size=4))
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (other / path.name).read_bytes()


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
