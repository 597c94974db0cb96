"""Likelihood under what captions find, with the model and the bank that ship."""

from dataclasses import replace

import numpy as np
import pytest

from cm3leon import load
from cm3leon.data.shards import Record, TokenSegment
from cm3leon.evaluation.likelihood import (
    Reader,
    Retrieved,
    caption_match,
    held_out_loss,
)
from cm3leon.retrieval.retriever import Neighbour
from cm3leon.tokens.text import CAPTION_IDS

DOCUMENTS = 24


@pytest.fixture(scope="module")
def engine():
    return load()


@pytest.fixture(scope="module")
def records(engine):
    bank, encode = engine.retriever.bank, engine.codec.text_tokenizer.encode
    chosen = np.random.default_rng(0).permutation(len(bank))[:DOCUMENTS]
    documents = [bank[int(number)] for number in chosen]
    return [
        Record(
            one.key,
            "all",
            (
                TokenSegment("text", (tuple(encode(one.text)),)),
                TokenSegment("image", (one.codes,)),
            ),
        )
        for one in documents
    ]


def reader_of(engine, records, count):
    found = Retrieved(records, engine.retriever, engine.codec, count) if count else None
    return Reader(
        engine.model,
        engine.codec.vocabulary,
        engine.position_slot,
        rows=8,
        neighbours=found,
    )


def test_a_picture_is_never_its_own_neighbour(engine, records):
    found = Retrieved(records, engine.retriever, engine.codec, 2)
    for picture in records:
        for caption in records[:4]:
            parts = found(caption, picture)
            assert [kind for kind, _ in parts] == ["text", "image"] * (len(parts) // 2)
            assert len(parts) <= 4
            own = picture.segments[1].alternatives[0]
            assert all(values != own for kind, values in parts if kind == "image")


def test_captions_of_neighbours_are_cut_as_at_the_prompt(engine, records):
    found = Retrieved(records, engine.retriever, engine.codec, 1)
    long = replace(engine.retriever.bank[0], text="an apple, and another " * 100)
    (_, ids), _ = found._parts(Neighbour(0, 0.5, long))
    assert ids == engine.codec.text_tokenizer.encode(long.text)[:CAPTION_IDS]


def test_only_the_document_counts(engine, records):
    reader = reader_of(engine, records, 2)
    lengths = [
        sum(len(part.alternatives[0]) for part in one.segments) for one in records
    ]
    losses = reader.losses([reader.row(one) for one in records])
    # <break> and <eos> are predicted too, and after neighbours the first word
    assert [len(values) - 2 for values, _ in losses] == lengths


def test_neighbours_make_captions_likelier_and_pictures_follow_them(engine, records):
    alone, near = (
        held_out_loss(reader_of(engine, records, count), records) for count in (0, 2)
    )
    assert near.text < alone.text
    match = caption_match(reader_of(engine, records, 2), records[:8], ways=4)
    assert match.right >= 0.75
