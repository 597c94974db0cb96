"""Shards and settings of a run that takes a second."""

import numpy as np
import pytest


@pytest.fixture
def shards(tmp_path, tokenizers, text_tokenizer):
    """Thirty records: random captions; codes that count up, so there is a rule."""
    from cm3leon import fingerprints
    from cm3leon.data.shards import (
        Alphabets,
        Record,
        TokenSegment,
        write_shards,
    )

    random = np.random.default_rng(0)

    def records():
        for number in range(30):
            caption = random.integers(0, text_tokenizer.size, 4).tolist()
            codes = [(number + step) % 64 for step in range(16)]
            yield Record(
                f"r{number}",
                "all",
                (
                    TokenSegment("text", (tuple(caption),)),
                    TokenSegment("image", (tuple(codes),)),
                ),
            )

    alphabets = Alphabets(
        text_tokenizer=fingerprints.of_file(tokenizers / "text_tokenizer.json"),
        text_size=text_tokenizer.size,
        codes_per_image=16,
        codebook_size=64,
    )
    folder = tmp_path / "shards"
    list(write_shards(folder, records(), alphabets, size=16))
    return folder


@pytest.fixture
def settings(tmp_path, tokenizers, shards):
    """Makes `Pretrain` settings of a tiny run, with changes."""
    from cm3leon.config import load_settings
    from cm3leon.training.pretrain import Pretrain

    def make(run, *changes):
        words = [
            f"run={tmp_path / run}",
            f"tokenizers={tokenizers}",
            f"held_out={shards}",
            f"stream.shards={shards}",
            "stream.rows=4",
            "stream.isolate_documents=true",
            "stream.position_slot=8",
            "model.preset=tiny",
            "optimizer.warmup_steps=2",
            "optimizer.learning_rate=1e-2",
            "loop.steps=8",
            "loop.report_every=1",
            "loop.validate_every=4",
            "loop.checkpoint_every=1",
            "loop.bfloat16=false",
        ]
        return load_settings(Pretrain, None, [*words, *changes])

    return make
