import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cm3leon.data.shards import Alphabets, Shards, TokenSegment, write_shards
from cm3leon.data.stream import (
    ChooseDocument,
    MisreadCodes,
    RotateRow,
    StreamConfig,
    TokenStream,
    collate,
    plain_row,
)
from cm3leon.errors import ConfigError, DataError
from cm3leon.objective.cm3 import CM3Config, restore
from cm3leon.randomness import generator
from cm3leon.training.loop import parts_of

CONTEXT = 64


@pytest.fixture(params=["isolated", "packed"])
def make(request, shard_folder, vocabulary):
    def stream(seed=0, **options):
        isolate = request.param == "isolated"
        config = StreamConfig(
            shards=str(shard_folder),
            rows=3,
            isolate_documents=isolate,
            position_slot=8 if isolate else 0,
        )
        return TokenStream(
            config, CM3Config(), vocabulary, CONTEXT, seed=seed, **options
        )

    return stream


def equal(left, right):
    for one, other in zip(left, right, strict=True):
        if isinstance(one, torch.Tensor):
            assert_close(one, other, rtol=0, atol=0)
        else:
            assert one == other


def by_picture(folder, vocabulary):
    """The ids of each version of each picture, with its record."""
    shards = Shards(folder)
    for number in range(len(shards)):
        record = shards[number]
        for codes in record.segments[1].alternatives:
            yield tuple(vocabulary.image_id(code) for code in codes), record


def test_stopping_anywhere_changes_nothing_after_it(make):
    stream = make()
    batches, states = [], []
    for _ in range(8):
        batches.append(next(stream))
        states.append(json.loads(json.dumps(stream.state())))
    for taken, state in enumerate(states, start=1):
        again = make()
        again.restore(state)
        for batch in batches[taken:]:
            equal(next(again), batch)


def test_the_same_seed_gives_the_same_batches_and_another_does_not(make):
    first, second, other = make(), make(), make(seed=1)
    same = [(next(first), next(second)) for _ in range(3)]
    for one, two in same:
        equal(one, two)
    assert any(
        one.ids.shape != different.ids.shape or not torch.equal(one.ids, different.ids)
        for (one, _), different in zip(same, other, strict=False)
    )


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, {}),
        (2, {"code_noise": 0.5}),
        (4, {"isolate_documents": True, "position_slot": 8}),
        (4, {"isolate_documents": True, "neighbours": (0.5, 0.5), "code_noise": 0.5}),
    ],
    ids=["packed", "packed, misread", "isolated", "isolated, misread"],
)
def test_every_batch_has_the_same_rows_however_many_share_it(
    shard_folder, vocabulary, options, ranks
):
    """And the state of any process resumes any number of them."""
    config = StreamConfig(shards=str(shard_folder), rows=8, **options)

    def stream(**ranks):
        return TokenStream(config, CM3Config(), vocabulary, CONTEXT, seed=0, **ranks)

    def rows(batch):
        columns = zip(batch.ids, batch.targets, batch.weights, strict=True)
        return [
            (tuple(ids[kept > 0].tolist()), tuple(targets[kept > 0].tolist()))
            for ids, targets, kept in columns
        ]

    whole = stream()
    parts = [stream(rank=rank, ranks=ranks) for rank in range(ranks)]
    for step in range(6):
        if step == 3:
            states = [part.state() for part in parts]
            assert states == [whole.state()] * ranks
            whole = stream()
            parts = [stream(rank=rank, ranks=ranks) for rank in range(ranks)]
            for part in (whole, *parts):
                part.restore(states[1])
        batch = rows(next(whole))
        shares = [rows(next(part)) for part in parts]
        assert [row for group in zip(*shares, strict=True) for row in group] == batch


def test_ranks_that_cannot_share_a_batch_are_told_the_rows(shard_folder, vocabulary):
    def ask(ranks, **options):
        config = StreamConfig(shards=str(shard_folder), **options)
        TokenStream(config, CM3Config(), vocabulary, CONTEXT, seed=0, ranks=ranks)

    with pytest.raises(ConfigError, match="a batch has 4 rows, which 3 processes"):
        ask(3, rows=4)
    isolated = {"isolate_documents": True, "neighbours": (0.5, 0.0, 0.5)}
    with pytest.raises(ConfigError, match=r"of 2 neighbours has 2 .* multiple of 12"):
        ask(4, rows=8, **isolated)
    ask(4, rows=12, **isolated)


def test_an_epoch_holds_every_record_once(shard_folder, vocabulary):
    config = StreamConfig(shards=str(shard_folder), rows=10, isolate_documents=True)
    plain = CM3Config(mode="none")
    stream = TokenStream(config, plain, vocabulary, CONTEXT, seed=0)
    versions = {ids: record.key for ids, record in by_picture(shard_folder, vocabulary)}
    seen = Counter()
    for _ in range(4):
        for row in next(stream).targets.tolist():
            seen[versions[tuple(x for x in row if x in vocabulary.image)]] += 1
    assert set(seen) == {f"r{number}" for number in range(40)}


def test_shares_of_the_mixture_are_kept(shard_folder, vocabulary):
    config = StreamConfig(
        shards=str(shard_folder),
        rows=50,
        isolate_documents=True,
        mixture={"core": 0.2, "mono": 0.8},
    )
    plain = CM3Config(mode="none")
    stream = TokenStream(config, plain, vocabulary, CONTEXT, seed=0)
    groups = {ids: record.group for ids, record in by_picture(shard_folder, vocabulary)}
    seen = Counter(
        groups[tuple(x for x in row if x in vocabulary.image)]
        for _ in range(4)
        for row in next(stream).targets.tolist()
    )
    assert seen["mono"] / 200 == pytest.approx(0.8, abs=0.02)


def test_an_unknown_group_is_named(shard_folder, vocabulary):
    config = StreamConfig(shards=str(shard_folder), mixture={"photos": 1.0})
    with pytest.raises(DataError, match="no group 'photos'; it has: core, mono"):
        TokenStream(config, CM3Config(), vocabulary, CONTEXT, seed=0)


def test_slots_need_isolated_documents(shard_folder):
    with pytest.raises(ConfigError, match="position_slot is 8 but rows are packed"):
        StreamConfig(shards=str(shard_folder), position_slot=8)


def test_shards_that_do_not_fit_the_vocabulary_are_refused(shard_folder, vocabulary):
    small = type(vocabulary).own(10, 64)
    with pytest.raises(DataError, match="more than the vocabulary"):
        TokenStream(
            StreamConfig(shards=str(shard_folder)), CM3Config(), small, CONTEXT, seed=0
        )


def test_a_rotated_row_restores_to_its_document(shard_folder, vocabulary):
    v = vocabulary
    choose, shards = ChooseDocument(v, 0.0), Shards(shard_folder)
    turn = RotateRow(v, CM3Config(whole_segment_share=0.5), CONTEXT, slot=8)
    for number in range(len(shards)):
        ids = choose(shards[number], generator(0, number))
        row = turn(ids, generator(1, number))
        assert restore(row.ids.tolist(), v.masks, v.infills, v.end) == ids


def test_moved_ids_keep_their_places(shard_folder, vocabulary):
    """Under a slot every image code has the place of its cell, moved or not."""
    v = vocabulary
    choose, shards = ChooseDocument(v, 0.0), Shards(shard_folder)
    turn = RotateRow(v, CM3Config(whole_segment_share=0.5), CONTEXT, slot=8)
    moved = 0
    for number in range(len(shards)):
        ids = choose(shards[number], generator(0, number))
        plain = plain_row(v, ids, 8)
        where = sorted(
            (int(id), int(place))
            for id, place in zip(plain.ids, plain.positions, strict=True)
            if id in v.image
        )
        row = turn(ids, generator(1, number))
        moved += row.spans
        assert where == sorted(
            (int(id), int(place))
            for id, place in zip(row.ids, row.positions, strict=True)
            if id in v.image
        )
    assert moved > 0


def test_padding_weighs_nothing_and_targets_are_the_next_ids(vocabulary):
    rows = [
        plain_row(vocabulary, [2, 5, 6, 2], 0),
        plain_row(vocabulary, [2, 7, 2], 0),
    ]
    batch = collate(rows, vocabulary.pad)
    assert batch.ids.tolist() == [[2, 5, 6], [2, 7, 2]]
    assert batch.targets.tolist() == [[5, 6, 2], [7, 2, vocabulary.pad]]
    assert batch.weights.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_packed_rows_are_the_documents_end_to_end(shard_folder, vocabulary):
    config = StreamConfig(shards=str(shard_folder), rows=2)
    plain = CM3Config(mode="none")
    stream = TokenStream(config, plain, vocabulary, CONTEXT, seed=0)
    ids = []
    for _ in range(4):
        batch = next(stream)
        for row, targets in zip(batch.ids, batch.targets, strict=True):
            assert len(row) == CONTEXT
            ids += [*row.tolist(), int(targets[-1])]
    edges = np.flatnonzero(np.array(ids) == vocabulary.eos)
    assert edges[0] == 0
    pairs = edges[1:-1:2], edges[2::2]
    assert all(b - a == 1 for a, b in zip(*pairs, strict=False))


def test_the_rate_of_hidden_captions_follows_the_setting(shard_folder, vocabulary):
    config = StreamConfig(shards=str(shard_folder), rows=200, isolate_documents=True)
    objective = CM3Config(mode="fixed", mean_spans=1.0, whole_segment_share=1.0)
    stream = TokenStream(config, objective, vocabulary, CONTEXT, seed=0)
    assert next(stream).hidden_captions == pytest.approx(0.5, abs=0.1)


@pytest.fixture
def near(shard_folder):
    """A record with four neighbours, each of a caption of its own."""
    record = Shards(shard_folder)[0]
    image = record.segments[1]
    others = tuple(
        (TokenSegment("text", ((number, number),)), image) for number in range(4)
    )
    return replace(record, neighbours=others)


def captions(vocabulary, ids):
    """The text ids of each document in a row, without the vocabulary's offset."""
    texts = []
    for part in np.split(
        np.asarray(ids), np.flatnonzero(np.equal(ids, vocabulary.break_))
    ):
        text = [int(x) - vocabulary.text.start for x in part if x in vocabulary.text]
        texts += [tuple(text)] if text else []
    return texts


def test_neighbours_stand_first_in_their_shares_and_in_any_order(near, vocabulary):
    choose = ChooseDocument(vocabulary, 0.0, neighbours=(0.5, 0.0, 0.0, 0.5))
    numbers, orders = Counter(), Counter()
    for seed in range(400):
        *before, own = captions(vocabulary, choose(near, generator(seed, "choose")))
        assert own in near.segments[0].alternatives
        assert len(set(before)) == len(before)
        numbers[len(before)] += 1
        orders[tuple(text[0] for text in before)] += 1
    assert set(numbers) == {0, 3}
    assert 150 < numbers[0] < 250
    assert len(orders) == 1 + 24  # none, or three of four in every order


def test_three_neighbours_give_seven_breaks_and_two_ends(near, vocabulary):
    choose = ChooseDocument(vocabulary, 0.0, neighbours=(0.0, 0.0, 0.0, 1.0))
    ids = choose(near, generator(0, "choose"))
    assert ids.count(vocabulary.break_) == 7
    assert ids.count(vocabulary.eos) == 2
    turn = RotateRow(vocabulary, CM3Config(mean_spans=0.0), 256, slot=8)
    row = turn(ids, generator(0, "turn"))
    assert row.neighbours.tolist() == [3] * len(row.ids)


@pytest.mark.parametrize("objective", [CM3Config(mode="none"), CM3Config()])
def test_in_packed_rows_an_id_counts_for_the_neighbours_of_its_document(
    tmp_path, near, vocabulary, objective
):
    """Pictures of documents that have four are all of code 0, of one all of code 1.

    Rows hold two documents and more, and cut them anywhere.
    """
    records = []
    for number in range(8):
        image = TokenSegment("image", ((number % 2,) * 16,))
        others = [(text, image) for text, _ in near.neighbours[: (4, 1)[number % 2]]]
        own = (near.segments[0], image)
        one = replace(near, key=f"{number}", segments=own, neighbours=tuple(others))
        records.append(one)
    sizes = {"text_size": len(vocabulary.text), "codebook_size": 64}
    alphabets = Alphabets(text_tokenizer="t", codes_per_image=16, **sizes)
    list(write_shards(tmp_path / "near", records, alphabets, size=8))
    config = StreamConfig(
        shards=str(tmp_path / "near"), rows=2, neighbours=(0.0, 0.0, 0.0, 1.0)
    )
    stream = TokenStream(config, objective, vocabulary, 200, seed=0)
    seen = Counter()
    for step in range(12):
        if step == 6:
            state = json.loads(json.dumps(stream.state()))
            stream = TokenStream(config, objective, vocabulary, 200, seed=0)
            stream.restore(state)
        batch = next(stream)
        for code, count in ((0, 3), (1, 1)):
            counts = batch.neighbours[batch.targets == vocabulary.image_id(code)]
            assert set(counts.tolist()) <= {count}
            seen[count] += len(counts)
        parts = [x for name, x in parts_of(batch).items() if name[:4] == "neig"]
        assert torch.equal(torch.stack(parts).sum(0), batch.weights)
        assert ((batch.targets == vocabulary.eos).sum(1) > 2).all()
    assert min(seen[1], seen[3]) > 500


def test_a_record_without_enough_neighbours_takes_what_there_is(near, vocabulary):
    few = replace(near, neighbours=near.neighbours[:1])
    choose = ChooseDocument(vocabulary, 0.0, neighbours=(0.0, 0.0, 1.0))
    assert len(captions(vocabulary, choose(few, generator(0, "choose")))) == 2


def test_a_document_may_be_its_own_neighbour(near, vocabulary):
    choose = ChooseDocument(vocabulary, 1.0, (0.0, 0.0, 1.0), itself=0.5)
    itself = 0
    for seed in range(400):
        *before, own = captions(vocabulary, choose(near, generator(seed, "choose")))
        assert len(before) == 2
        itself += own in before
    assert 50 < itself < 110  # half the time it is one of five, of which two are drawn


def test_as_its_own_neighbour_a_document_is_in_the_same_versions(near, vocabulary):
    text = TokenSegment("text", ((7,), (8,)))
    image = TokenSegment("image", tuple((code,) * 4 for code in range(9)))
    record = replace(near, segments=(text, image), neighbours=())
    choose = ChooseDocument(vocabulary, 0.0, (0.0, 1.0), itself=1.0)
    rows = {tuple(choose(record, generator(seed, "choose"))) for seed in range(200)}
    assert len(rows) == 2 * 9
    for row in rows:
        inner = row[1:-1]
        middle = len(inner) // 2
        assert inner[middle] == vocabulary.break_
        assert inner[:middle] == inner[middle + 1 :]


@pytest.mark.parametrize("shares", [(), (0.0,), (-1.0, 2.0)])
def test_shares_of_neighbours_must_be_shares(shares):
    with pytest.raises(ConfigError, match="give shares of documents with 0, 1, 2"):
        StreamConfig(shards="x", neighbours=shares)


def test_misread_codes_change_only_what_is_read_and_only_codes(
    shard_folder, vocabulary
):
    def stream(**options):
        config = StreamConfig(
            shards=str(shard_folder), rows=40, isolate_documents=True, **options
        )
        return TokenStream(config, CM3Config(), vocabulary, CONTEXT, seed=0)

    plain, noisy = next(stream()), next(stream(code_noise=0.5))
    equal(plain._replace(ids=noisy.ids), noisy)
    image = (plain.ids >= vocabulary.image.start) & (plain.ids < vocabulary.image.stop)
    changed = plain.ids != noisy.ids
    assert not changed[~image].any()
    assert ((noisy.ids >= vocabulary.image.start) == image)[image].all()
    assert 0.15 < changed[image].float().mean() < 0.35
    shares = changed.sum(1) / image.sum(1)
    assert shares.min() < 0.1
    assert 0.3 < shares.max() < 0.9  # of 16 codes a row


def test_no_chance_to_misread_changes_nothing(shard_folder, vocabulary):
    rows = [plain_row(vocabulary, [vocabulary.eos, vocabulary.image.start] * 4, 0)]
    batch = collate(rows, vocabulary.pad)
    equal(MisreadCodes(vocabulary, 0.0)(batch, generator(0)), batch)


@pytest.mark.parametrize("name", ["itself", "code_noise"])
def test_chances_must_be_chances(name):
    with pytest.raises(ConfigError, match=f"{name} is 1.5, outside"):
        StreamConfig(shards="s", **{name: 1.5})
