"""A folder of shards for the tiny vocabulary."""

import numpy as np
import pytest


@pytest.fixture
def shard_folder(tmp_path, vocabulary):
    """Forty records in two groups: captions of 1-6 ids, pictures of 16 codes."""
    from cm3leon.data.shards import Alphabets, Record, TokenSegment, write_shards

    random = np.random.default_rng(0)

    def records():
        for number in range(40):
            captions = tuple(
                tuple(random.integers(0, len(vocabulary.text), length).tolist())
                for length in random.integers(1, 7, 3).tolist()
            )
            codes = tuple(tuple(random.integers(0, 64, 16).tolist()) for _ in range(2))
            yield Record(
                f"r{number}",
                "core" if number % 4 else "mono",
                (TokenSegment("text", captions), TokenSegment("image", codes)),
            )

    alphabets = Alphabets(
        text_tokenizer="t",
        text_size=len(vocabulary.text),
        codes_per_image=16,
        codebook_size=64,
    )
    folder = tmp_path / "shards"
    list(write_shards(folder, records(), alphabets, size=16))
    return folder
