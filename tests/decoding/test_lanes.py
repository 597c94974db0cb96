import pytest
import torch
from torch.testing import assert_close

from cm3leon.decoding import lanes as lanes_module
from cm3leon.decoding.lanes import Lane, Lanes


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
    batch = Lanes(model, [[lane] for lane in lanes], steps + 1, head)
    logits = [batch.read(batch.last)]
    logits += [batch.read(drawn[:, i]) for i in range(steps)]
    for row, lane in enumerate(lanes):
        wanted = teacher_forced(model, lane, drawn[row].tolist(), head)
        ours = torch.stack([step[row] for step in logits])
        assert_close(ours.log_softmax(-1), wanted.log_softmax(-1), rtol=1e-4, atol=1e-4)


def test_lanes_of_one_id_need_no_prefill(model):
    batch = Lanes(model, [[Lane((2,), (0,), 1)]], 1, torch.arange(10))
    wanted = model(torch.tensor([[2]]))[0, :, :10]
    assert_close(batch.read(batch.last), wanted)


def test_a_lane_that_has_ended_may_be_fed_beyond_the_last_position(model):
    last = model.config.context - 1
    batch = Lanes(model, [[Lane((2, 5), (0, last), last + 1)]], 3, torch.arange(10))
    ids = batch.last
    for _ in range(3):
        ids = batch.read(ids).argmax(-1)


@pytest.mark.parametrize("lengths", [(20, 29, 17), (40, 0, 17), (40, 40, 17)], ids=str)
def test_what_lanes_have_in_common_is_read_once_and_to_the_same_effect(model, lengths):
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
    shared = Lanes(model, requests, 3, head)
    del model.memorise
    assert passes == [len(set(lengths)), 6]
    apart = Lanes(model, [[lane] for request in requests for lane in request], 3, head)
    for ids in (apart.last, torch.arange(6) + 290, torch.arange(6) + 300):
        assert_close(shared.read(ids), apart.read(ids), rtol=1e-4, atol=1e-4)


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
    together = Lanes(model, requests, 1, head)
    apart = Lanes(model, [[one] for request in requests for one in request], 1, head)
    assert_close(
        together.read(together.last), apart.read(apart.last), rtol=1e-4, atol=1e-4
    )
