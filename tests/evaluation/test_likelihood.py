import math

import numpy as np
import pytest
import torch

from cm3leon.data.shards import (
    Alphabets,
    Record,
    Shards,
    TokenSegment,
    write_shards,
)
from cm3leon.evaluation.likelihood import (
    Reader,
    caption_match,
    held_out_loss,
    unigram_entropy,
)
from cm3leon.model.presets import preset
from cm3leon.model.transformer import Transformer


def record(number, codes=None):
    caption = (number % 7, 3 + number % 5, number)
    codes = codes or [(number * 5 + step) % 64 for step in range(16)]
    parts = TokenSegment("text", (caption,)), TokenSegment("image", (tuple(codes),))
    return Record(f"r{number}", "all", parts)


@pytest.fixture
def reader(vocabulary):
    torch.manual_seed(0)
    model = Transformer(preset("tiny", vocabulary_size=vocabulary.size))
    return Reader(model, vocabulary, slot=8, rows=4)


def test_a_model_that_knows_nothing_has_the_loss_of_equal_chances(reader):
    torch.nn.init.zeros_(reader.model.embedding.weight)
    loss = held_out_loss(reader, [record(number) for number in range(6)])
    assert loss.image == pytest.approx(math.log(reader.vocabulary.size), abs=1e-2)
    assert loss.text == pytest.approx(math.log(reader.vocabulary.size), abs=1e-2)
    assert loss.documents == 6


def test_a_model_without_attention_reads_no_caption(reader):
    """At step 0 every block is the identity, so a caption changes no code's nats."""
    match = caption_match(reader, [record(n) for n in range(8)], ways=4)
    assert match.margin == pytest.approx(0, abs=1e-3)


def test_a_model_trained_on_the_pictures_matches_their_captions(reader):
    records = [record(number) for number in range(8)]
    model = reader.model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    documents = [reader.row(one).ids.tolist() for one in records]
    ids = torch.tensor(documents)
    from cm3leon.objective.loss import next_id_loss
    from cm3leon.tokens.codec import positions

    places = torch.tensor([positions(reader.vocabulary, d, 8) for d in documents])
    ones = torch.ones(len(ids), ids.shape[1] - 1)
    for _ in range(150):
        logits = model(ids[:, :-1], places[:, :-1])
        next_id_loss(logits, ids[:, 1:], ones).backward()
        optimizer.step()
        optimizer.zero_grad()
    match = caption_match(reader, records, ways=4)
    assert match.right == 1.0
    assert match.margin > 0.1
    assert (match.ways, match.pictures) == (4, 8)


def test_unigram_entropy_is_that_of_the_counts(tmp_path):
    alphabets = Alphabets(
        text_tokenizer="t", text_size=300, codes_per_image=16, codebook_size=64
    )
    records = [record(0, [0] * 8 + [1] * 8), record(1, [2] * 16)]
    list(write_shards(tmp_path, records, alphabets))
    shares = np.array([0.25, 0.25, 0.5])
    expected = -(shares * np.log(shares)).sum()
    assert unigram_entropy(Shards(tmp_path)) == pytest.approx(expected)
