from types import SimpleNamespace

import pytest
import torch
from torch.testing import assert_close

from cm3leon.decoding import lanes as lanes_module
from cm3leon.decoding.lanes import Lane, Lanes, Room
from cm3leon.errors import RequestError
from cm3leon.tokens.document import Document, Image, Text


def joined(model, requests, more, head):
    """Lanes of these requests that have read their prompts."""
    lanes = Lanes(model, Room.of(model, requests, more), head)
    lanes.join(requests)
    return lanes


def teacher_forced(model, lane, drawn, head):
    """Logits after the prompt and after each drawn id, in one plain pass."""
    ids = torch.tensor([[*lane.ids, *drawn]])
    counted = range(lane.next_position, lane.next_position + len(drawn))
    places = torch.tensor([[*lane.positions, *counted]])
    return model(ids, places)[0, len(lane.ids) - 1 :, head]


@pytest.mark.parametrize("jump", [0, 13])
def test_reading_step_by_step_is_one_pass_over_the_whole(model, jump):
    lengths, steps = [1, 5, 9, 5], 6
    random = torch.Generator().manual_seed(0)
    lanes = [
        Lane(
            tuple(torch.randint(4, 300, (n,), generator=random).tolist()),
            tuple(range(n)),
            n + jump,
        )
        for n in lengths
    ]
    drawn = torch.randint(4, 300, (len(lanes), steps), generator=random)
    head = torch.arange(280, 344)
    batch = joined(model, [[lane] for lane in lanes], steps + 1, head)
    logits = [batch.read(batch.last)]
    logits += [batch.read(drawn[:, i]) for i in range(steps)]
    for row, lane in enumerate(lanes):
        wanted = teacher_forced(model, lane, drawn[row].tolist(), head)
        ours = torch.stack([step[row] for step in logits])
        assert_close(ours.log_softmax(-1), wanted.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_lanes_of_one_id_need_no_prefill(model):
    batch = joined(model, [[Lane((2,), (0,), 1)]], 1, torch.arange(10))
    wanted = model(torch.tensor([[2]]))[0, :, :10]
    assert_close(batch.read(batch.last), wanted)


@pytest.mark.parametrize("copied", [False, True], ids=["shared", "copied"])
@pytest.mark.parametrize("lengths", [(20, 29, 17), (40, 0, 17), (40, 40, 17)], ids=str)
def test_what_lanes_have_in_common_is_read_once_and_to_the_same_effect(
    model, lengths, copied
):
    random = torch.Generator().manual_seed(0)
    common = torch.randint(4, 300, (40,), generator=random).tolist()

    def lane(length, more):
        rest = torch.randint(4, 300, (more,), generator=random).tolist()
        ids = (*common[:length], *rest)
        return Lane(ids, tuple(range(len(ids))), len(ids) + 3)

    requests = [(lane(length, 6), lane(length, 2)) for length in lengths]
    head = torch.arange(280, 344)
    passes = []
    whole = model.memorise
    model.memorise = lambda ids, *more: (passes.append(len(ids)), whole(ids, *more))
    together = Lanes(model, Room(3, 2, 64, 0 if copied else 64), head)
    together.join(requests)
    del model.memorise
    once = (
        [1] * sum(length > 0 for length in lengths) if copied else [len(set(lengths))]
    )
    assert passes == [*once, 6]
    apart = joined(model, [[lane] for request in requests for lane in request], 3, head)
    for ids in (apart.last, torch.arange(6) + 290, torch.arange(6) + 300):
        assert_close(together.read(ids), apart.read(ids), rtol=1e-4, atol=1e-4)


def test_short_lanes_are_not_padded_to_long_ones(model):
    random = torch.Generator().manual_seed(0)

    def lane(length):
        ids = tuple(torch.randint(4, 300, (length,), generator=random).tolist())
        return Lane(ids, tuple(range(length)), length + 3)

    requests = [(lane(long), lane(short)) for long, short in ((40, 2), (33, 5))]
    head = torch.arange(280, 344)
    read = []
    whole = model.memorise
    model.memorise = lambda ids, *more: (read.append(ids.shape), whole(ids, *more))
    together = joined(model, requests, 3, head)
    del model.memorise
    assert read == [(2, 39), (2, 4)]
    apart = joined(model, [[lane] for request in requests for lane in request], 3, head)
    alone = [joined(model, [request], 3, head) for request in requests]
    for ids in (apart.last, torch.arange(4) + 290, torch.arange(4) + 300):
        found = together.read(ids)
        assert_close(found, apart.read(ids), rtol=1e-4, atol=1e-4)
        by_itself = [
            one.read(part) for one, part in zip(alone, ids.split(2), strict=True)
        ]
        assert torch.equal(found, torch.cat(by_itself))


def test_a_request_with_nothing_in_common_may_stand_beside_long_prefixes(
    model, monkeypatch
):
    """Prefixes are read some at a time, and one of them is empty."""
    monkeypatch.setattr(lanes_module, "AT_ONCE", 1)
    beginning = tuple(range(10, 40))

    def lane(first, last):
        ids = (*first, last)
        return Lane(ids, tuple(range(len(ids))), len(ids))

    requests = [
        (lane(beginning, 41), lane(beginning, 42)),
        (lane((50,), 51), lane((60,), 61)),
    ]
    head = torch.arange(280, 344)
    together = joined(model, requests, 1, head)
    apart = joined(model, [[one] for request in requests for one in request], 1, head)
    assert_close(
        together.read(together.last), apart.read(apart.last), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("window", [1, 3, 6])
@pytest.mark.parametrize("which", ["ours", "grouped heads"])
def test_those_that_stay_read_on_when_others_leave_and_join(
    model, grouped, which, window
):
    """Whatever happened before in its place, a request reads, to the bit, what it would
    alone.
    """
    model = model if which == "ours" else grouped
    random = torch.Generator().manual_seed(0)

    def request(common, mores):
        first = torch.randint(4, 300, (common,), generator=random).tolist()
        rests = [torch.randint(4, 300, (n,), generator=random).tolist() for n in mores]
        rows = [(*first, *rest) for rest in rests]
        return [Lane(row, tuple(range(len(row))), len(row) + 3) for row in rows]

    head = torch.arange(280, 344)
    several = [request(common, (6, 2)) for common in (30, 0, 17, 45, 20)]
    alone = [joined(model, [lanes], 9 * window, head) for lanes in several]
    batch = Lanes(model, Room(4, 2, 96, 64), head)
    here = []

    def step(lanes, ids):
        if window == 1:
            logits = lanes.read(lanes.last)
        else:
            behind = ids[:, None] + torch.arange(window - 1)
            logits = lanes.read_ahead(torch.cat([lanes.last[:, None], behind], 1))
            lanes.keep(torch.full_like(ids, 2), window)
        lanes.last = ids
        return logits

    def read(times):
        for _ in range(times):
            ids = torch.randint(4, 300, (len(here),), generator=random)
            ours = step(batch, ids.repeat_interleave(2))
            for row, number in enumerate(here):
                wanted = step(alone[number], ids[row].repeat(2))
                assert torch.equal(ours[2 * row : 2 * row + 2], wanted)

    batch.join([several[0], several[1], several[2]])
    here = [0, 1, 2]
    read(2)
    batch.leave([0])
    here = [2, 1]
    read(1)
    batch.join([several[3], several[4]])
    here = [2, 1, 3, 4]
    read(2)
    batch.leave([1, 3])
    here = [2, 3]
    read(1)
    batch.leave([0, 1])
    assert batch.count == 0
    alone[0] = joined(model, [several[0]], 9 * window, head)
    batch.join([several[0]])
    here = [0]
    read(2)


def test_a_batch_that_does_not_fit_the_memory_is_refused_before_it_is_made(model):
    with pytest.raises(RequestError, match=r"drawing 1000000000 at once takes .* GB"):
        Lanes(model, Room(10**9, 2, 500, 0), torch.arange(4))
    with pytest.raises(RequestError, match="take a smaller model"):
        Room(1, 1, 10**15, 0).check(model)


def test_as_many_as_a_refusal_names_are_drawn(plain, options, monkeypatch):
    """Where half a request more than three would fit."""
    document, picture = Document(Text("b")), Image(codes=tuple(range(16)))
    near = [Document(Text("a green apple, and more words"), picture)]

    def ask(count):
        return plain.extend([document] * count, options, neighbours=[near] * count)

    (prepared,) = plain.prepare([document], options, neighbours=[near])
    room = Room.of(plain.model, [prepared.prompt.lanes], prepared.prompt.most)
    each = (room.lanes * room.own + room.prefix) * plain.model.cache_bytes
    free = SimpleNamespace(available=3 * each + each // 2)
    monkeypatch.setattr(lanes_module.psutil, "virtual_memory", lambda: free)
    for count in (4, 7):
        said = f"drawing {count} at once takes .*; ask for 3 at once"
        with pytest.raises(RequestError, match=said):
            ask(count)
    assert len({one.images[-1].codes for one in ask(3)}) == 3


def test_room_is_what_the_cache_takes(model):
    cache = model.cache(3, 7)
    tensors = [*cache.keys, *cache.values]
    assert sum(one.nbytes for one in tensors) == 3 * 7 * model.cache_bytes
